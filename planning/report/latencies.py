"""Latencies out of benchmark results, as shares of all requests that were sent. Pure.

A request that failed was never answered: it counts among all, and the curve of a run with failures ends below 100 %.
So a quantile here is never below the benchmark's own, which is of answered ones alone, and equals it where none failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath

from planning.bench.plan import Network
from planning.bench.results import CellResults, UnusableResults, load_results
from planning.sections import UnusableFile

MOST_POINTS = 300
"""Of a curve; more would not be seen."""
MICROSECONDS = 1000.0


@dataclass(frozen=True, slots=True)
class Run:
    """What one cell of a result came to.

    Args:
        source: The result file's name.
        scenario: How requests came.
        line: Over which network.
        subject: Who answered.
        sent: Requests that were due.
        sorted_ms: Latencies of those that were answered, the shortest first.
        machine: What it ran on, and which model.
    """

    source: str
    scenario: str
    line: str
    subject: str
    sent: int
    sorted_ms: tuple[float, ...]
    machine: str

    @property
    def failed(self) -> int:
        """Requests without an answer."""
        return self.sent - len(self.sorted_ms)

    def within_ms(self, share: float) -> float | None:
        """The time within which a share of all requests was answered, by nearest rank; None: so many never were."""
        place = max(math.ceil(round(share * self.sent, 6)), 1)  # rounded: 0.07 of 100 are 7
        return self.sorted_ms[place - 1] if place <= len(self.sorted_ms) else None


@dataclass(frozen=True, slots=True)
class LatencyCurve:
    """How long the requests of one run took.

    Args:
        name: Of the run.
        sorted_ms: Latencies, the shortest first.
        share: Of the requests that took at most as long.
    """

    name: str
    sorted_ms: tuple[float, ...]
    share: tuple[float, ...]


def load_runs(content: bytes, source: str) -> tuple[Run, ...]:
    """The runs of a result file.

    Args:
        content: It.
        source: Its path.

    Raises:
        UnusableFile: It is no result of a benchmark, or holds no run.
    """
    try:
        results = load_results(content, source)
    except UnusableResults as error:
        raise UnusableFile(str(error)) from None
    ran = ", ".join(filter(None, (results.machine.get("processor"), results.model.name, results.model.note)))
    runs = tuple(_run(cell, PurePath(source).name, ran) for cell in results.cells)
    if not any(run.sorted_ms for run in runs):
        raise UnusableFile(f"{source} holds no latencies; was the benchmark interrupted at once?")
    return runs


def groups(runs: Sequence[Run]) -> Iterator[tuple[str, tuple[Run, ...]]]:
    """What belongs in one picture: a scenario over one line, with what crosses no line beside it."""
    for (source, scenario), found in groupby(
        sorted(runs, key=lambda run: (run.source, run.scenario)), key=lambda run: (run.source, run.scenario)
    ):
        here = [run for run in found if run.sorted_ms]
        beside = tuple(run for run in here if not run.line)
        lines = list(dict.fromkeys(run.line for run in here if run.line)) or [""]
        for line in lines:
            crossing = tuple(run for run in here if line and run.line == line)
            if beside or crossing:
                yield ", ".join(filter(None, (scenario, line, source))), beside + crossing


def curve(run: Run) -> LatencyCurve:
    """The run's cumulative distribution, thinned to what can be seen."""
    answered = len(run.sorted_ms)
    places = sorted({round(step * (answered - 1) / (MOST_POINTS - 1)) for step in range(MOST_POINTS)})
    return LatencyCurve(
        run.subject, tuple(run.sorted_ms[place] for place in places), tuple((place + 1) / run.sent for place in places)
    )


def _run(cell: CellResults, source: str, machine: str) -> Run:
    latencies = sorted(taken / MICROSECONDS for one in cell.rounds for taken in one.latency_us)
    return Run(
        source,
        cell.scenario,
        "" if cell.network is None else _line(cell.network),
        cell.subject,
        sum(one.sent for one in cell.rounds),
        tuple(latencies),
        machine,
    )


def _line(network: Network) -> str:
    uplink = "" if network.up_mbit_per_second is None else f", {network.up_mbit_per_second:g} Mbit/s up"
    return f"{network.rtt_ms:g} ms round trip{uplink}"
