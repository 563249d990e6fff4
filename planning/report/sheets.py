"""A report on paper: A4 pages as PDF, and an overview on one sheet as PNG. Laid out here, so that no browser is needed.

Invariants:

- No row of a table and no picture is cut by the end of a page; heads of a table stand again on each page that it is on.
- A heading stands on the same page as what follows it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf, PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from planning.report.blocks import Block, Listing, Paragraph, Picture, Report, Table
from planning.report.palette import FAINT, INK, QUIET
from planning.report.typeface import MONO, SANS, drawable, drawing, folded

POINTS_PER_INCH = 72
PAGE_WIDTH, PAGE_HEIGHT = 595.3, 841.9
"""A4, in points."""
MARGIN = 45.0
ROOM = PAGE_WIDTH - 2 * MARGIN
LINE = 1.35
"""Line height over letter size."""
GAP = 5.0
"""Below blocks and rows."""
COLUMN_GAP = 9.0
SMALL_TABLE = 6
"""Rows that are kept together."""
LISTING_COLUMNS = 120
PNG_DPI = 130
COLOURS = 256
"""Of the PNG, which are few and flat: the file takes a third of what it would in full colour."""


@dataclass(frozen=True, slots=True)
class Letters:
    """How text is set.

    Args:
        size: In points.
        weight: Of the strokes.
        family: The typeface.
        colour: Of the letters.
    """

    size: float
    weight: str = "normal"
    family: str = SANS
    colour: str = INK

    @property
    def height(self) -> float:
        """Of a line, in points."""
        return self.size * LINE

    def lines(self, text: str, room: float = ROOM) -> tuple[str, ...]:
        """The text folded into a column."""
        return tuple(folded(drawable(text, self.family), room, self.size, self.family, self.weight))


TITLE = Letters(15, "bold")
LEAD = Letters(12.5, "bold")
HEADING = Letters(11.5, "bold")
BODY = Letters(9)
SMALL = Letters(7.8, colour=QUIET)
CELL = Letters(7)
HEAD = Letters(7, "bold")
CODE = Letters(6.6, family=MONO)


@dataclass(frozen=True, slots=True)
class Words:
    """Lines at one place of a strip; `x` is where they begin or, where they stand to the right, end."""

    x: float
    lines: tuple[str, ...]
    letters: Letters
    right: bool = False


@dataclass(frozen=True, slots=True)
class Strip:
    """Something as wide as the page that is never cut.

    Args:
        height: In points.
        words: Text in it.
        picture: A plot in it.
        rule: The colour of the line below it; empty for none.
        with_next: Whether the next strip must be on the same page.
        repeated: What stands on top again if a page ends before it: a table's heads.
    """

    height: float
    words: tuple[Words, ...] = ()
    picture: Picture | None = None
    rule: str = ""
    with_next: bool = False
    repeated: Strip | None = None


def pdf(report: Report) -> bytes:
    """The whole report on A4 pages."""
    blocks = ((section.heading, section.blocks) for section in report.sections)
    pages = list(_paginated(list(_strips(report, blocks))))
    content = io.BytesIO()
    with drawing(**{"pdf.fonttype": 42}):
        facts = {"Title": drawable(report.title), "CreationDate": None, "Creator": None, "Producer": None}
        with PdfPages(content, metadata=facts) as file:
            for number, strips in enumerate(pages, start=1):
                figure = _sheet(strips, PAGE_HEIGHT, f"{number} of {len(pages)}")
                FigureCanvasPdf(figure)
                file.savefig(figure)
    return content.getvalue()


def png(report: Report) -> bytes:
    """The report in short, on one sheet that is as long as it has to be."""
    blocks = ((section.heading, section.in_short) for section in report.sections if section.in_short)
    strips = list(_strips(report, blocks))
    content = io.BytesIO()
    with drawing():
        figure = _sheet(strips, sum(strip.height for strip in strips) + 2 * MARGIN)
        FigureCanvasAgg(figure)
        figure.savefig(drawn := io.BytesIO(), format="png", dpi=PNG_DPI)
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(
        content, format="png", optimize=True, dpi=(PNG_DPI, PNG_DPI)
    )
    return content.getvalue()


def _strips(report: Report, sections: Iterator[tuple[str, Sequence[Block]]]) -> Iterator[Strip]:
    yield _text(report.title, TITLE, below=6)
    for heading, blocks in sections:
        yield Strip(2 * GAP)
        yield replace(_text(heading, HEADING), with_next=True)
        for block in blocks:
            introduces = isinstance(block, Paragraph) and block is not blocks[-1]
            for strip in _block(block):
                yield replace(strip, with_next=strip.with_next or introduces)
    yield Strip(2 * GAP)
    yield _text(report.made, SMALL)


def _block(block: Block) -> Iterator[Strip]:
    match block:
        case Paragraph():
            yield _text(block.text, LEAD if block.lead else BODY)
        case Table():
            yield from _table(block)
        case Picture():
            yield Strip(ROOM * block.height, picture=block, with_next=True)
            yield _text(block.caption, SMALL, below=2 * GAP)
        case Listing():
            for line in drawable(block.text, MONO).split("\n"):
                for start in range(0, max(len(line), 1), LISTING_COLUMNS):
                    words = Words(0, (line[start : start + LISTING_COLUMNS],), CODE)
                    yield Strip(CODE.height, (words,))


def _text(text: str, letters: Letters, below: float = GAP) -> Strip:
    lines = letters.lines(text)
    return Strip(len(lines) * letters.height + below, (Words(0, lines, letters),))


def _table(table: Table) -> Iterator[Strip]:
    total = sum(table.widths)
    rooms = [ROOM * share / total for share in table.widths]
    caption = _text(table.caption, SMALL, below=2)
    yield replace(caption, with_next=True)
    heads = replace(_row(table, table.heads, rooms, heads=True), with_next=True)
    yield heads
    for row in table.rows:
        together = len(table.rows) <= SMALL_TABLE and row is not table.rows[-1]
        yield replace(_row(table, row, rooms), repeated=heads, with_next=together)
    yield Strip(2 * GAP)


def _row(table: Table, cells: Sequence[str], rooms: Sequence[float], heads: bool = False) -> Strip:
    words, left, most = [], 0.0, 1
    for column, (cell, room) in enumerate(zip(cells, rooms, strict=True)):
        letters = HEAD if heads or column == 0 else CELL
        lines, right = letters.lines(cell, room - COLUMN_GAP), column in table.numbers
        words.append(Words(left + room - COLUMN_GAP if right else left, lines, letters, right))
        left, most = left + room, max(most, len(lines))
    return Strip(most * CELL.height + GAP, tuple(words), rule=INK if heads else FAINT)


def _paginated(strips: Sequence[Strip]) -> Iterator[list[Strip]]:
    room = PAGE_HEIGHT - 2 * MARGIN
    page: list[Strip] = []
    for start, together in _kept_together(strips):
        if page and sum(strip.height for strip in (*page, *together)) > room:
            yield page
            page = [] if start.repeated is None else [start.repeated]
        page += together if page or together[0].words or together[0].picture else together[1:]
    if page:
        yield page


def _kept_together(strips: Sequence[Strip]) -> Iterator[tuple[Strip, list[Strip]]]:
    """Runs of strips that share a page, each with its first."""
    together: list[Strip] = []
    for strip in strips:
        together.append(strip)
        if not strip.with_next:
            yield together[0], together
            together = []


def _sheet(strips: Sequence[Strip], height: float, foot: str = "") -> Figure:
    figure = Figure(figsize=(PAGE_WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH), facecolor="white")
    top = height - MARGIN
    for strip in strips:
        for words in strip.words:
            _write(figure, words, top, height)
        if strip.picture is not None:
            _place(figure, strip.picture, top, height)
        top -= strip.height
        if strip.rule:
            ends = (MARGIN / PAGE_WIDTH, 1 - MARGIN / PAGE_WIDTH)
            level = (top + GAP / 2) / height
            figure.add_artist(Line2D(ends, (level, level), color=strip.rule, linewidth=0.6))
    if foot:
        _write(figure, Words(ROOM, (foot,), SMALL, right=True), MARGIN / 2 + SMALL.height, height)
    return figure


def _write(figure: Figure, words: Words, top: float, height: float) -> None:
    for number, line in enumerate(words.lines):
        baseline = top - number * words.letters.height - words.letters.size
        figure.text(
            (MARGIN + words.x) / PAGE_WIDTH,
            baseline / height,
            line,
            ha="right" if words.right else "left",
            va="baseline",
            fontsize=words.letters.size,
            fontweight=words.letters.weight,
            fontfamily=words.letters.family,
            color=words.letters.colour,
        )


def _place(figure: Figure, picture: Picture, top: float, height: float) -> None:
    tall = ROOM * picture.height
    grid = figure.add_gridspec(
        3,
        3,
        width_ratios=(MARGIN, ROOM, MARGIN),
        height_ratios=(max(height - top, 0.001), tall, max(top - tall, 0.001)),
        wspace=0,
        hspace=0,
    )
    picture.draw(figure.add_subfigure(grid[1, 1]))
