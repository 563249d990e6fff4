"""What a report says of latencies that a benchmark measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from planning.advice import Advice
from planning.report.blocks import Paragraph, Picture, Section, Table
from planning.report.latencies import Run, curve, groups
from planning.report.pictures import draw_latencies
from planning.wording import shown

SHARES = (0.5, 0.95, 0.99)


def latencies(advice: Advice, runs: Sequence[Run]) -> Section:
    heading = "Latencies"
    if not runs:
        none = "No benchmark was given: the latencies are the figures below, measured or assumed as it says there."
        return Section("latencies", heading, (Paragraph(none),))
    target = advice.workload.p95_target_ms
    pictures = tuple(
        Picture(
            f"latencies-{number}",
            f"Share of requests answered within a time, measured: {title}.",
            f"Cumulative distribution of latency, {title}, P95 target {shown(target)} ms. "
            + " ".join(f"{run.subject}: {', '.join(_within(run))}." for run in found),
            0.42,
            partial(draw_latencies, curves=tuple(curve(run) for run in found), target_ms=target),
        )
        for number, (title, found) in enumerate(groups(runs), start=1)
    )
    table = Table(
        "Measured, from the time at which each request was due; shares and quantiles are of all that were sent, "
        "where the benchmark's own table has those of answered ones alone",
        ("run", "subject", "sent", "failed", "P50, ms", "P95, ms", "P99, ms", "within the target"),
        tuple(_latency_row(run, target) for run in runs),
        (3.4, 2, 1.2, 1.1, 1.4, 1.4, 1.4, 1.6),
        frozenset({2, 3, 4, 5, 6}),
    )
    origins = dict.fromkeys((run.source, run.machine) for run in runs)
    told = tuple(Paragraph(f"{source} was measured on: {machine or 'it does not say'}") for source, machine in origins)
    return Section("latencies", heading, (*told, *pictures, table), pictures[:1])


def _latency_row(run: Run, target_ms: float) -> tuple[str, ...]:
    p95 = run.within_ms(0.95)
    return (
        ", ".join(filter(None, (run.scenario, run.line, run.source))),
        run.subject,
        f"{run.sent:,}",
        f"{run.failed:,}",
        *("never" if (taken := run.within_ms(share)) is None else f"{taken:,.4g}" for share in SHARES),
        "yes" if p95 is not None and p95 <= target_ms else "no",
    )


def _within(run: Run) -> Iterator[str]:
    for share in SHARES:
        taken = run.within_ms(share)
        yield f"P{share * 100:g} " + ("never reached" if taken is None else f"{taken:,.4g} ms")
