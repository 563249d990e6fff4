"""What a benchmark measured, and its one file. `docs/benchmarks.md` has the form of the file.

Invariants:

- Latency counts from when a request was due, so a sender or a server that stalls hides nothing (coordinated omission).
- Latencies stand in the order in which the requests were due: neighbours are alike, and a comparison must know that.
- Requests without an answer are in no quantile; they are counted by what became of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from planning.bench.plan import Network
from planning.plain import as_plain

FORMAT = "hybrid-router-bench/1"

LATE_US = 5000
"""A sender that is so late at its P99 says more of its own machine than of whom it asks."""


Microseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class UnusableResults(Exception):
    """A file that holds no results of a benchmark; the message says why."""


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of a cell. Lists are parallel, in whole microseconds, of answered requests.

    Args:
        round: Which of the plan's rounds, from 0.
        seed: Of its arrivals.
        began: When, ISO 8601.
        load: Processes that were runnable on this machine, on average over the minute before.
        sent: Requests, the warm-up's apart.
        errors: Those without an answer, by problem code or exception.
        backends: Those with one, by backend.
        degraded: Answers that say that they are lesser ones.
        latency_us: From when a request was due to the last byte of its answer.
        compute_us: Of the attempt whose answer it is, as its route says.
        network_us: Likewise.
        queue_us: Likewise.
        cost_usd: Of all routes together.
        bytes_out: What left the site, all routes together.
        energy_j: Joules of the machine meanwhile; None: not measured.
        late_p99_us: How late the sender itself was, P99: large where the machine was too slow for its own load.
        energy_estimated: Whether the joules are the gateway's estimate, not the kernel's count.
    """

    round: int
    seed: int
    began: str
    load: float
    sent: int
    errors: Mapping[str, int]
    backends: Mapping[str, int]
    degraded: int
    latency_us: tuple[Microseconds, ...]
    compute_us: tuple[Microseconds, ...]
    network_us: tuple[Microseconds, ...]
    queue_us: tuple[Microseconds, ...]
    cost_usd: float
    bytes_out: int
    energy_j: float | None
    late_p99_us: int
    energy_estimated: bool = False


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A cell's rounds together. None: nothing was answered or, for energy, measured."""

    sent: int
    answered: int
    failed_share: float
    latency_ms: Quantiles | None
    compute_ms: Quantiles | None
    network_ms: Quantiles | None
    queue_ms: Quantiles | None
    usd_per_million: float | None
    joules_per_inference: float | None
    joules_estimated: bool


@dataclass(frozen=True, slots=True)
class CellResults:
    """What was measured of one cell.

    Args:
        subject: Who was asked.
        network: The line's conditions; None where it was not crossed.
        scenario: With which load.
        per_second: That load's mean rate.
        rounds: The measurements.
    """

    subject: str
    network: Network | None
    scenario: str
    per_second: float
    rounds: tuple[Round, ...]

    @property
    def key(self) -> str:
        """As `planning.bench.plan.Cell.key`."""
        return f"{self.subject} | {self.network or 'no line'} | {self.scenario}"

    @property
    def sent_late(self) -> bool:
        """Whether this machine was too slow for its own load in some round."""
        return any(one.late_p99_us > LATE_US for one in self.rounds)

    @property
    def summary(self) -> Summary:
        """All rounds together."""
        sent = sum(one.sent for one in self.rounds)
        answered = sum(len(one.latency_us) for one in self.rounds)
        joules = [one.energy_j for one in self.rounds if one.energy_j is not None]
        energy = sum(joules) if len(joules) == len(self.rounds) else None
        return Summary(
            sent=sent,
            answered=answered,
            failed_share=1 - answered / sent if sent else 0.0,
            latency_ms=_quantiles(one.latency_us for one in self.rounds),
            compute_ms=_quantiles(one.compute_us for one in self.rounds),
            network_ms=_quantiles(one.network_us for one in self.rounds),
            queue_ms=_quantiles(one.queue_us for one in self.rounds),
            usd_per_million=sum(one.cost_usd for one in self.rounds) / answered * 1e6 if answered else None,
            joules_per_inference=energy / answered if answered and energy is not None else None,
            joules_estimated=any(one.energy_estimated for one in self.rounds),
        )


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that was measured. `note` says what to make of its figures."""

    name: str
    file: str
    size_mb: float
    sha256: str
    note: str


@dataclass(frozen=True, slots=True)
class Results:
    """A result file's content.

    Args:
        began: When, ISO 8601.
        ended: Likewise; None: it is not finished.
        plan: What was to be measured, every default filled in.
        plan_sha256: Of the plan, and of the model, payload and prices that it names.
        machine: On what, in words.
        model: Which model.
        prices: Date and currency of the prices.
        cells: What was measured so far, in the plan's order.
    """

    began: str
    ended: str | None
    plan: Mapping[str, Any]
    plan_sha256: str
    machine: Mapping[str, str]
    model: ModelFacts
    prices: Mapping[str, str]
    cells: tuple[CellResults, ...]

    @property
    def finished(self) -> frozenset[tuple[int, str]]:
        """Round and key of every measurement that is in."""
        return frozenset((one.round, cell.key) for cell in self.cells for one in cell.rounds)


class _Head(msgspec.Struct):
    format: str = ""


def load_results(content: bytes, source: str = "result file") -> Results:
    """Reads a result file.

    Raises:
        UnusableResults: It is none, or only a part of one.
    """
    try:
        if msgspec.json.decode(content, type=_Head).format != FORMAT:
            raise UnusableResults(f"{source} is not of the form {FORMAT}.")
        results = msgspec.json.decode(content, type=Results)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnusableResults(f"{source} holds no whole results of a benchmark: {error}.") from None
    for cell in results.cells:
        for one in cell.rounds:
            if not len(one.latency_us) == len(one.compute_us) == len(one.network_us) == len(one.queue_us) <= one.sent:
                raise UnusableResults(f"{source}: the lists of {cell.key} are not equally long.")
    return results


def dump_results(results: Results) -> bytes:
    """A result file, with each cell's summary for whoever reads it without this software."""
    plain = {"format": FORMAT} | as_plain(results)
    for section, cell in zip(plain["cells"], results.cells, strict=True):
        section["summary"] = as_plain(cell.summary)
    return msgspec.json.encode(plain) + b"\n"


def added(cells: Sequence[CellResults], fresh: CellResults, order: Sequence[str]) -> tuple[CellResults, ...]:
    """The cells with a round more.

    Args:
        cells: So far.
        fresh: A cell with the new round alone.
        order: The keys of the plan's cells, in order.
    """
    by_key = {cell.key: cell for cell in cells}
    before = by_key.get(fresh.key)
    rounds = (() if before is None else before.rounds) + fresh.rounds
    by_key[fresh.key] = CellResults(fresh.subject, fresh.network, fresh.scenario, fresh.per_second, rounds)
    return tuple(by_key[key] for key in order if key in by_key)


def quantile(ordered: Sequence[int], share: float) -> int:
    """The quantile by nearest rank: the smallest value that at least this share of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def counted(words: Iterable[str]) -> dict[str, int]:
    """How often each comes, the most frequent first."""
    return dict(Counter(words).most_common())


def _quantiles(lists: Iterable[Sequence[int]]) -> Quantiles | None:
    ordered = sorted(us for one in lists for us in one)
    if not ordered:
        return None
    return Quantiles(*(quantile(ordered, share) / 1000 for share in (0.5, 0.95, 0.99)))
