"""A drill's outcome in a terminal, as a table of plain text, and for machines, as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from drills.figures import Figures
from drills.judgement import Verdict
from drills.slo import Slo

COLUMNS = (
    "SCENARIO",
    "VERDICT",
    "FAILED",
    "LATE",
    "DETECTED s",
    "BACK s",
    "P99 BEFORE",
    "DURING",
    "AFTER",
    "LOCAL ms",
    "FLAPS",
    "TWICE",
    "COST $",
    "PHI PACKETS",
)


@dataclass(frozen=True, slots=True)
class Drill:
    """One call of `hybrid-router drill`, with what came of it.

    Args:
        command: Its command line.
        date: When, ISO 8601.
        machine: What it ran on and with, by name.
        slo: What had to hold.
        verdicts: What did, by scenario, in order.
        not_run: Scenarios that cannot be had here, and why.
        broken: Scenarios in which the drill itself did not work, and why.
    """

    command: str
    date: str
    machine: Mapping[str, str]
    slo: Slo
    verdicts: Sequence[Verdict]
    not_run: Mapping[str, str]
    broken: Mapping[str, str]

    @property
    def word(self) -> str:
        """FAIL where any scenario failed, NO VERDICT where nothing is known of one or of all, else PASS."""
        words = {verdict.word for verdict in self.verdicts}
        if self.broken or not words:
            words.add("NO VERDICT")
        return next(word for word in ("FAIL", "NO VERDICT", "PASS") if word in words)


def table(drill: Drill) -> str:
    """The table of all scenarios, and below it what is wrong, a line each."""
    rows = [COLUMNS, *(_row(verdict) for verdict in drill.verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [_aligned(row, widths) for row in rows]
    for verdict in drill.verdicts:
        lines += [f"{verdict.record.scenario}: {complaint}" for complaint in complaints(verdict)]
    lines += [f"{scenario}: not run: {why}" for scenario, why in drill.not_run.items()]
    lines += [f"{scenario}: the drill itself did not work: {why}" for scenario, why in drill.broken.items()]
    return "\n".join(lines)


def complaints(verdict: Verdict) -> Iterator[str]:
    """Everything that keeps it from passing, a sentence each."""
    if verdict.no_verdict:
        yield verdict.no_verdict
    yield from verdict.record.problems
    for check in verdict.checks:
        if not check.passed:
            yield f"{check.name} is {check.found}, wanted {check.wanted}: {check.sentence}"


def as_json(drill: Drill) -> bytes:
    """The outcome for machines. Times are seconds, money is dollars; what cannot be said is null."""
    return orjson.dumps(
        {
            "verdict": drill.word,
            "command": drill.command,
            "date": drill.date,
            "machine": dict(drill.machine),
            "slo": asdict(drill.slo),
            "scenarios": {verdict.record.scenario: _document(verdict) for verdict in drill.verdicts},
            "not_run": dict(drill.not_run),
            "broken": dict(drill.broken),
        },
        option=orjson.OPT_INDENT_2,
    )


def _document(verdict: Verdict) -> dict[str, Any]:
    record = verdict.record
    return {
        "verdict": verdict.word,
        "no_verdict": verdict.no_verdict or None,
        "fault": record.fault,
        "fault_s": record.ended - record.began,
        "checks": [asdict(check) for check in verdict.checks],
        "figures": _plain(verdict.figures),
        "facts": dict(record.facts),
        "problems": list(record.problems),
    }


def _plain(figures: Figures) -> dict[str, Any]:
    return asdict(figures) | {"failed": figures.failures, "failed_with": dict(figures.failed)}


def _row(verdict: Verdict) -> tuple[str, ...]:
    figures = verdict.figures
    return (
        verdict.record.scenario,
        verdict.word,
        f"{figures.failures:,}",
        f"{figures.late:,}",
        seconds(figures.detection),
        seconds(figures.recovery),
        *(p99_ms(figures, when) for when in ("before", "during", "after", "local")),
        f"{figures.flaps}",
        f"{figures.answered_twice}",
        f"{figures.cost_usd:.4f}",
        "-" if figures.phi_packets is None else f"{figures.phi_packets}",
    )


def seconds(value: float | None) -> str:
    """Seconds to two places, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def p99_ms(figures: Figures, when: str) -> str:
    """The P99 of a phase in milliseconds, or a dash."""
    quantiles = figures.latency[when]
    return "-" if quantiles is None else f"{quantiles.p99 * 1000:.1f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    words = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*words, *numbers])
