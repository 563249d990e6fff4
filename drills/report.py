"""A drill's report: one HTML file that needs nothing else, and beside it each scenario's picture as a PNG."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from drills.expectations import Expectation
from drills.figures import Quantiles
from drills.judgement import Check, Verdict
from drills.summary import Drill, p99_ms, seconds
from drills.timeline import draw

FILE = "report.html"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #111 }
h1 { margin-bottom: 0 } h2 { margin: 2.5em 0 .3em; border-top: 1px solid #bbb; padding-top: 1em }
table { border-collapse: collapse; margin: 1em 0 } .wide { overflow-x: auto }
th, td { padding: .25em .55em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.word { font-weight: 700; white-space: nowrap } .FAIL, .NO { outline: 2px solid #111; padding: 0 .3em }
th.n { white-space: normal }
img { max-width: 100%; height: auto } code { background: #f2f2f2; padding: .1em .3em } .quiet { color: #555 }
"""

_PHASES = (
    ("local", "device alone"),
    ("before", "before"),
    ("during", "during"),
    ("outage", "steady outage"),
    ("after", "after"),
)


def write_report(drill: Drill, expectations: Mapping[str, Expectation], folder: Path) -> Path:
    """Writes a drill's report.

    Args:
        drill: What came of it.
        expectations: What was expected, by scenario.
        folder: Where; made if it is not there.

    Returns:
        The HTML file.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for verdict in drill.verdicts:
        name = verdict.record.scenario
        pictures[name] = draw(verdict, expectations[name])
        (folder / f"{name}.png").write_bytes(pictures[name])
    page = folder / FILE
    page.write_text("\n".join(_page(drill, pictures)), encoding="utf-8")
    return page


def _page(drill: Drill, pictures: Mapping[str, bytes]) -> Iterator[str]:
    yield f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Drill: {drill.word}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    yield f"<h1>Failover drill: {_word(drill.word)}</h1>"
    yield f'<p class="quiet">{escape(drill.date)} · <code>{escape(drill.command)}</code></p>'
    yield from _overview(drill)
    for verdict in drill.verdicts:
        yield from _scenario(verdict, pictures[verdict.record.scenario])
    yield "<h2>Where and how</h2><table>"
    for name, value in drill.machine.items():
        yield f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
    yield "</table><p>Requests leave at a constant rate, whatever became of those before, and latency counts from when"
    yield "a request was due. Quantiles are by nearest rank from every request; nothing is interpolated or left out."
    yield "A steady outage begins when the fault must have been noticed. Packets are counted on the line itself.</p>"
    yield "</body></html>"


def _overview(drill: Drill) -> Iterator[str]:
    heads = "".join(
        f'<th class="n">{head}</th>'
        for head in (
            "failed",
            "late",
            "detected, s",
            "back, s",
            "P99 before, ms",
            "during",
            "after",
            "device alone",
            "flaps",
            "answered twice",
            "cost, $",
            "phi packets",
        )
    )
    yield f'<div class="wide"><table><tr><th>scenario</th><th>verdict</th>{heads}</tr>'
    for verdict in drill.verdicts:
        figures = verdict.figures
        name = escape(verdict.record.scenario)
        cells = (
            f"{figures.failures:,}",
            f"{figures.late:,}",
            seconds(figures.detection),
            seconds(figures.recovery),
            *(p99_ms(figures, when) for when in ("before", "during", "after", "local")),
            str(figures.flaps),
            str(figures.answered_twice),
            f"{figures.cost_usd:.4f}",
            "-" if figures.phi_packets is None else str(figures.phi_packets),
        )
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        yield f'<tr><td><a href="#{name}">{name}</a></td><td>{_word(verdict.word)}</td>{numbers}</tr>'
    for name, why in drill.not_run.items():
        yield f'<tr><td>{escape(name)}</td><td>not run</td><td colspan="12">{escape(why)}</td></tr>'
    for name, why in drill.broken.items():
        yield f'<tr><td>{escape(name)}</td><td>{_word("NO VERDICT")}</td><td colspan="12">{escape(why)}</td></tr>'
    yield "</table></div>"


def _scenario(verdict: Verdict, picture: bytes) -> Iterator[str]:
    record, figures = verdict.record, verdict.figures
    name = escape(record.scenario)
    yield f'<h2 id="{name}">{name}: {_word(verdict.word)}</h2><p>{escape(record.fault)}</p>'
    for sentence in filter(None, (verdict.no_verdict, *record.problems)):
        yield f"<p><strong>{escape(sentence)}</strong></p>"
    encoded = base64.b64encode(picture).decode()
    yield f'<img alt="Timeline of {name}: requests by backend, latencies and the cloud\'s state"'
    yield f' src="data:image/png;base64,{encoded}">'
    yield "<table><tr><th>check</th><th>verdict</th><th>wanted</th><th>found</th><th>in words</th></tr>"
    yield from map(_check, verdict.checks)
    yield '</table><table><tr><th>latency, ms</th><th class="n">answers</th><th class="n">P50</th>'
    yield '<th class="n">P95</th><th class="n">P99</th></tr>'
    for phase, title in _PHASES:
        if (quantiles := figures.latency[phase]) is not None:
            yield _quantiles(title, quantiles)
    yield "</table>"
    backends = ", ".join(f"{count:,} by {backend}" for backend, count in sorted(figures.backends.items()))
    lag = "" if figures.lag_p99 is None else f" The sender's own lag: P99 {figures.lag_p99 * 1000:.1f} ms."
    yield f"<p>{figures.requests:,} requests in all; of the main load, {escape(backends) or 'none answered'}."
    yield f"{figures.worked_twice:,} were tried by more than one backend, {figures.answered_twice} answered twice."
    yield f"They cost ${figures.cost_usd:.6f}, and {figures.bytes_out:,} bytes of payload left the site.{lag}</p>"
    if record.facts:
        facts = ", ".join(f"{escape(name)} = {value:g}" for name, value in sorted(record.facts.items()))
        yield f'<p class="quiet">Also measured: {facts}.</p>'


def _check(check: Check) -> str:
    word = _word("PASS" if check.passed else "FAIL")
    cells = "".join(f"<td>{escape(text)}</td>" for text in (check.wanted, check.found, check.sentence))
    return f"<tr><td>{escape(check.name)}</td><td>{word}</td>{cells}</tr>"


def _quantiles(title: str, quantiles: Quantiles) -> str:
    numbers = (quantiles.p50, quantiles.p95, quantiles.p99)
    cells = "".join(f'<td class="n">{value * 1000:.1f}</td>' for value in numbers)
    return f'<tr><td>{title}</td><td class="n">{quantiles.count:,}</td>{cells}</tr>'


def _word(word: str) -> str:
    return f'<span class="word {word}">{word}</span>'
