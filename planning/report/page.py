"""A report as one HTML page that needs nothing else: no script, no address, pictures inlined as SVG. Pure."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from html import escape
from typing import Final

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from planning.report.blocks import Block, Listing, Paragraph, Picture, Report, Table
from planning.report.pictures import WIDTH
from planning.report.typeface import drawing, visible

STYLE: Final = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, "Helvetica Neue", Arial, sans-serif;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #111; background: #fff; overflow-wrap: anywhere } th { overflow-wrap: break-word }
th[scope=row] { min-width: 6.5em; overflow-wrap: anywhere } td:not(.number) { min-width: 5em }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem } h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem }
.lead { font-size: 1.35rem; font-weight: 700; margin: .4rem 0; border-left: .35rem solid #0072B2; padding-left: .7rem }
.quiet, figcaption, caption { color: #595959; font-size: .88rem; text-align: left } caption { padding: .3rem 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem; width: 100% }
th, td { padding: .3rem .55rem; border-bottom: 1px solid #bbb; text-align: left; vertical-align: top }
thead th { border-bottom: 2px solid #111 } tbody th { font-weight: 600 }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
figure { margin: 1rem 0 } svg { width: 100%; height: auto; max-width: 50rem; display: block }
pre { background: #f4f4f4; border: 1px solid #bbb; padding: .8rem; font-size: .8rem; line-height: 1.4;
  white-space: pre-wrap }
@page { size: A4; margin: 15mm }
@media print {
  body { font-size: 9.5pt; max-width: none; margin: 0; padding: 0 } table { font-size: 8pt } .wide { overflow: visible }
  h1 { font-size: 17pt } h2 { font-size: 13pt; break-after: avoid } .lead { font-size: 13pt }
  .quiet, figcaption, caption { font-size: 7.5pt }
  thead { display: table-header-group } tr, figure, p { break-inside: avoid }
  thead, thead tr { break-after: avoid } tbody tr:first-child { break-before: avoid } caption { break-after: avoid }
  p + figure { break-before: avoid }
  th, td { padding: .15rem .3rem } pre { font-size: 7pt; background: none }
}
"""


def html(report: Report) -> str:
    """The page."""
    return "\n".join(_page(report)) + "\n"


def _page(report: Report) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f"<title>{_text(report.title)}</title>"
    yield f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n</head>\n<body>\n<main>'
    yield f"<h1>{_text(report.title)}</h1>"
    for section in report.sections:
        yield f'<section id="{section.name}" aria-labelledby="{section.name}-heading">'
        yield f'<h2 id="{section.name}-heading">{_text(section.heading)}</h2>'
        for block in section.blocks:
            yield from _block(block)
        yield "</section>"
    yield f'</main>\n<footer><p class="quiet">{_text(report.made)}</p></footer>\n</body>\n</html>'


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph():
            kind = ' class="lead"' if block.lead else ""
            yield f"<p{kind}>{_text(block.text)}</p>"
        case Table():
            yield from _table(block)
        case Picture():
            yield f"<figure>{svg(block)}<figcaption>{_text(block.caption)}</figcaption></figure>"
        case Listing():
            yield f'<pre tabindex="0"><code>{_text(block.text)}</code></pre>'


def _table(table: Table) -> Iterator[str]:
    yield f'<div class="wide"><table>\n<caption>{_text(table.caption)}</caption>'
    kinds = [' class="number"' if column in table.numbers else "" for column in range(len(table.heads))]
    heads = (f'<th scope="col"{kind}>{_text(head)}</th>' for head, kind in zip(table.heads, kinds, strict=True))
    widths = "".join(f'<col style="width: {share / sum(table.widths):.1%}">' for share in table.widths)
    yield f"<colgroup>{widths}</colgroup>"
    yield f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>"
    for first, *others in table.rows:
        cells = (f"<td{kind}>{_text(cell)}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
        yield f'<tr><th scope="row">{_text(first)}</th>{"".join(cells)}</tr>'
    yield "</tbody></table></div>"


def svg(picture: Picture) -> str:
    """A picture to stand within a page: named, and with identifiers that no other picture has."""
    content = io.StringIO()
    # Letters stay letters, which can be read aloud, searched and copied.
    with drawing(**{"svg.hashsalt": picture.name, "svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH, WIDTH * picture.height))
        FigureCanvasSVG(figure)
        picture.draw(figure)
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{picture.name}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{_text(picture.in_words)}"', 1).rstrip()


def _text(text: str) -> str:
    return escape(visible(text))
