"""Results and comparisons in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from planning.bench.comparison import Comparison, Difference
from planning.bench.results import LATE_US, CellResults, Quantiles, Results

HEADINGS = ("subject", "line", "load", "sent", "failed", "P50", "P95", "P99", "compute", "network", "$/million", "J")


def results_text(results: Results) -> str:
    """A table of all cells, and what to know about them."""
    machine = results.machine
    lines = [
        f"{results.plan['name']}, {results.began}, seed {results.plan['seed']}, rounds: {results.plan['rounds']}",
        "; ".join(
            f"{name}: {machine[name]}" for name in ("processor", "memory", "busy at the start") if name in machine
        ),
        f"Model {results.model.file}, {results.model.size_mb:.3g} MB. {results.model.note}".rstrip(),
        f"Prices of {results.prices['dated']}, {results.prices['currency']}. "
        f"$/million counts a device as used {results.plan['device_utilisation']:.0%}, "
        f"a node {results.plan['node_utilisation']:.0%}; a live gateway's by its own policy file.",
        "",
        *_table([HEADINGS, *map(_row, results.cells)]),
        "",
        "Milliseconds from when a request was due to its answer; compute and network: medians, as routes report them.",
        "P50 to P99 are of answered requests; those of a report are of all that were sent.",
    ]
    if any(cell.sent_late for cell in results.cells):
        lines.append(
            f"* This machine sent late itself (P99 above {LATE_US / 1000:g} ms): the figures are too high, "
            "ask from another machine or less."
        )
    if any(cell.summary.joules_per_inference is None for cell in results.cells):
        lines.append(
            "J is joules for an inference, of the whole machine; where it says -, no meter can be read and the gateway "
            "tells of none."
        )
    if any(cell.summary.joules_estimated for cell in results.cells):
        lines.append("~ before J: an estimate, of what the gateway says that its board draws, idle or not.")
    lines += [f"{cell.key}: {_failures(cell)}" for cell in results.cells if cell.summary.failed_share]
    if results.ended is None:
        lines.append("Not finished: --resume goes on.")
    return "\n".join(lines) + "\n"


def _row(cell: CellResults) -> tuple[str, ...]:
    summary = cell.summary
    mark = "*" if cell.sent_late else ""
    cost, joules = summary.usd_per_million, summary.joules_per_inference
    return (
        cell.subject,
        str(cell.network or "-"),
        cell.scenario + mark,
        f"{summary.sent:,}",
        f"{summary.failed_share:.2%}",
        *_milliseconds(summary.latency_ms),
        _milliseconds(summary.compute_ms)[0],
        _milliseconds(summary.network_ms)[0],
        "-" if cost is None else f"{cost:.3f}",
        "-" if joules is None else f"{'~' if summary.joules_estimated else ''}{joules:.3f}",
    )


def _milliseconds(quantiles: Quantiles | None) -> tuple[str, str, str]:
    if quantiles is None:
        return ("-", "-", "-")
    return (f"{quantiles.p50:.2f}", f"{quantiles.p95:.2f}", f"{quantiles.p99:.2f}")


def _failures(cell: CellResults) -> str:
    totals: dict[str, int] = {}
    for one in cell.rounds:
        for code, count in one.errors.items():
            totals[code] = totals.get(code, 0) + count
    return ", ".join(f"{code} {count:,}" for code, count in totals.items())


def comparison_text(comparison: Comparison) -> str:
    """A table of all figures, B against A."""
    rows: list[tuple[str, ...]] = [("cell", "", "A", "B", "B - A lies in", "B is")]
    for cell in comparison.cells:
        rows += [(cell.key, *_difference(difference)) for difference in cell.differences]
        if any(cell.failed) or not cell.differences:
            rows.append((cell.key, "failed", f"{cell.failed[0]:.2%}", f"{cell.failed[1]:.2%}", "", ""))
    found = sum(d.verdict in ("slower", "faster") for cell in comparison.cells for d in cell.differences)
    lines = [f"Warning: {warning}" for warning in comparison.warnings]
    lines += [*_table(rows), ""]
    lines.append(f"{found} differences in {len(comparison.cells)} cells." if found else "No difference.")
    lines.append(f"Milliseconds. {_trust(comparison.level)} Bootstrap with seed {comparison.seed}.")
    return "\n".join(lines) + "\n"


def _trust(level: float | None) -> str:
    if level is None:
        return "How often equal things are said to differ is not known with one round; measure three."
    return f"Where nothing differs, at most {level:.0%} of the cells are said to."


def _difference(difference: Difference) -> tuple[str, ...]:
    low, high = difference.low, difference.high
    interval = "-" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"
    return (difference.figure, f"{difference.a:.2f}", f"{difference.b:.2f}", interval, difference.verdict)


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
