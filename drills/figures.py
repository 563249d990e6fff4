"""The figures of a record: what its samples, sightings and wire add up to. Pure.

Invariants:
- Quantiles are by nearest rank: each is the latency of a request that was really sent. Nothing is interpolated.
- Latency counts from when a request was due, and only what was answered as expected has one here; what was not is
  counted as failed, and cannot make a quantile look better.
- Only differences of times matter: a record whose times are all shifted has the same figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drills.expectations import Answers, Expectation
from drills.record import Record, Sample, Sighting

IN_A_ROW = 10
"""So many answers of the cloud one after another say that it is back."""

KILL_TAKES_S = 0.05
"""Between the moment that is noted as the crash's and the moment when the kernel has closed the last connection."""

LATE_SEND_S = 0.02
"""A request that leaves later than this after it was due was sent late: under a tenth of the usual deadline."""

STEADY_FACT = "steady_s"
"""Seconds into the fault after which the outage is not steady any more, where that is before its end."""

LOCAL_STREAM = "local"
PHI_STREAM = "phi"
OVERLOADED, UNAVAILABLE, TIMED_OUT = 429, 503, 504
REFUSED = (OVERLOADED, UNAVAILABLE)
NO_ANSWER = (OVERLOADED, UNAVAILABLE, TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Latencies in seconds, by nearest rank, of so many answers."""

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a record adds up to. Times are seconds, money is dollars; None stands for what cannot be said, or says
    nothing of this scenario.

    Args:
        requests: How many were sent, all streams together.
        failed: Those that got no answer and are not excused, by what they got instead.
        late: Answers after their deadline that are not excused.
        excused: Requests without an answer that the scenario expects.
        detection: From the fault's begin until the last request was due that paid for the dead cloud.
        seen_down: From the fault's begin until `/status` said that the cloud is down.
        recovery: From the fault's end until the first of ten answers in a row by the cloud.
        flaps: How often the cloud's state changed in `/status`.
        faults: How many faults there were.
        by_remote_in_outage: Answers by the backend that was to be dead, once it must have been noticed.
        answered_twice: Ids that were answered more than once.
        worked_twice: Ids that more than one backend worked on.
        latency: Of the main load `before`, `during` and `after` the fault and in the steady `outage`; and of the
            device alone, `local`.
        backends: How many answers each backend gave to the main load, degraded ones apart.
        cost_usd: What the routes say that they cost.
        bytes_out: What the routes say that left the site.
        phi_packets: Packets on the line with data that may not be there.
        marked_packets: Packets on the line with other recognisable data, which shows that the count counts.
        lag_p99: How late the sender itself was, P99.
        sent_late: Share of requests that left more than `LATE_SEND_S` after they were due.
    """

    requests: int
    failed: Mapping[str, int]
    late: int
    excused: int
    detection: float | None
    seen_down: float | None
    recovery: float | None
    flaps: int
    faults: int
    by_remote_in_outage: int
    answered_twice: int
    worked_twice: int
    latency: Mapping[str, Quantiles | None]
    backends: Mapping[str, int]
    cost_usd: float
    bytes_out: int
    phi_packets: int | None
    marked_packets: int | None
    lag_p99: float | None
    sent_late: float

    @property
    def failures(self) -> int:
        """How many failed."""
        return sum(self.failed.values())


def measure(record: Record, expectation: Expectation, detection_s: float, recovery_s: float) -> Figures:
    """Adds a record up.

    Args:
        record: What was seen.
        expectation: What was expected of it.
        detection_s: Seconds into the fault from which on the outage counts as steady.
        recovery_s: Seconds after the fault during which refusals are still excused, where they are expected.
    """
    main = [sample for sample in record.samples if sample.stream == expectation.stream]
    answers = [sample for sample in main if _as_expected(sample, expectation)]
    during = _due(main, record.began, record.ended)
    steady_s = record.facts.get(STEADY_FACT, record.ended - record.began)
    steady = _due(answers, record.began + detection_s, record.began + steady_s)
    unanswered = [sample for sample in record.samples if not sample.answered]
    failed = [sample for sample in unanswered if not _is_excused(sample, record, expectation, recovery_s)]
    paid = [sample.due for sample in during if _paid_for(sample, expectation.remote)]
    seen_down = _seen_down(record, expectation.watched)
    # An error names no attempts: where there are only errors, who paid cannot be seen, but what the gateway knows can.
    only_errors = expectation.answers is Answers.REFUSALS
    detection = seen_down if only_errors else max(paid, default=record.began) - record.began
    lags = sorted(sample.sent - sample.due for sample in record.samples)
    marked = record.wire.marked if record.wire else {}
    return Figures(
        requests=len(record.samples),
        failed=dict(Counter(map(_what_instead, failed))),
        late=sum(_is_late(sample, record, expectation) for sample in record.samples),
        excused=len(unanswered) - len(failed),
        detection=detection if expectation.detection else None,
        seen_down=seen_down,
        recovery=_recovery(main, record.ended, expectation.remote) if expectation.recovery else None,
        flaps=_changes(record.sightings, expectation.watched),
        faults=_faults(record, expectation),
        by_remote_in_outage=sum(sample.answered and sample.backend == expectation.remote for sample in steady),
        answered_twice=_repeated(sample.id for sample in record.samples if sample.answered),
        worked_twice=sum(len({backend for backend, _, _ in sample.attempts}) > 1 for sample in record.samples),
        latency={
            "local": _quantiles(s for s in record.samples if s.stream == LOCAL_STREAM and s.answered),
            "before": _quantiles(_due(answers, -math.inf, record.began)),
            "during": _quantiles(_due(answers, record.began, record.ended)),
            "outage": _quantiles(steady),
            "after": _quantiles(_due(answers, record.ended, math.inf)),
        },
        backends=dict(Counter(_whose(sample) for sample in main if sample.answered)),
        cost_usd=sum(sample.cost_usd for sample in record.samples),
        bytes_out=sum(sample.bytes_out for sample in record.samples),
        phi_packets=marked.get(PHI_STREAM, 0) if record.wire else None,
        marked_packets=sum(n for stream, n in marked.items() if stream != PHI_STREAM) if record.wire else None,
        lag_p99=quantile(lags, 0.99) if lags else None,
        sent_late=sum(lag > LATE_SEND_S for lag in lags) / len(lags) if lags else 0.0,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile by nearest rank: the smallest value that at least this share of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _quantiles(samples: Iterable[Sample]) -> Quantiles | None:
    latencies = sorted(sample.latency for sample in samples)
    if not latencies:
        return None
    return Quantiles(len(latencies), *(quantile(latencies, share) for share in (0.5, 0.95, 0.99)))


def _due(samples: Iterable[Sample], start: float, end: float) -> list[Sample]:
    return [sample for sample in samples if start <= sample.due < end]


def _as_expected(sample: Sample, expectation: Expectation) -> bool:
    match expectation.answers:
        case Answers.REFUSALS:
            return sample.answered or sample.status in NO_ANSWER
        case Answers.SHED:
            # What was let in and ran out of time was late: it counts in the P99, as no refusal does.
            return sample.answered or sample.status == TIMED_OUT
        case _:
            return sample.answered


def _paid_for(sample: Sample, backend: str) -> bool:
    return any(name == backend and outcome != "success" for name, outcome, _ in sample.attempts)


def _is_excused(sample: Sample, record: Record, expectation: Expectation, recovery_s: float) -> bool:
    """Whether the scenario expects that this request got no answer."""
    is_main = sample.stream == expectation.stream
    match expectation.answers:
        case Answers.BUT_IN_FLIGHT:
            return sample.status == 0 and sample.sent <= record.began + KILL_TAKES_S and sample.ended >= record.began
        case Answers.REFUSALS:
            # Whose answer was on its way when the fault began has lost it, and has nobody else to ask.
            meanwhile = sample.ended >= record.began and sample.due < record.ended + recovery_s
            return is_main and sample.status in NO_ANSWER and meanwhile
        case Answers.SHED:
            is_refusal = sample.status in REFUSED and sample.retry_after is not None
            return is_refusal or (is_main and sample.status == TIMED_OUT)
        case Answers.ALWAYS | Answers.SPARED:
            return False


def _is_late(sample: Sample, record: Record, expectation: Expectation) -> bool:
    if not sample.answered or sample.latency <= sample.deadline:
        return False
    # Connections that arrive while the gateway starts again wait for it.
    waits = expectation.answers is Answers.BUT_IN_FLIGHT and record.began <= sample.due <= record.ended
    return not waits


def _what_instead(sample: Sample) -> str:
    return f"{sample.status} {sample.error}".strip() if sample.status else sample.error or "no answer"


def _whose(sample: Sample) -> str:
    return f"{sample.backend}, degraded" if sample.degraded else sample.backend


def _recovery(main: Sequence[Sample], ended: float, remote: str) -> float | None:
    in_a_row = 0
    first = 0.0
    for sample in main:
        if sample.due < ended:
            continue
        if not (sample.answered and sample.backend == remote and not sample.degraded):
            in_a_row = 0
            continue
        if not in_a_row:
            first = sample.ended - ended
        in_a_row += 1
        if in_a_row == IN_A_ROW:
            return first
    return None


def turns(main: Iterable[Sample]) -> list[tuple[str, float]]:
    """Whose answers came in rows of `IN_A_ROW` at least, one backend after the other, and when each row began."""
    found: list[tuple[str, float]] = []
    row: list[Sample] = []
    for sample in main:
        if row and sample.backend != row[0].backend:
            row = []
        row.append(sample)
        if len(row) == IN_A_ROW and (not found or found[-1][0] != sample.backend):
            found.append((sample.backend, row[0].due))
    return found


def _seen_down(record: Record, watched: str) -> float | None:
    for sighting in record.sightings:
        if (
            record.began <= sighting.at < record.ended
            and sighting.up is not None
            and not sighting.up.get(watched, True)
        ):
            return sighting.at - record.began
    return None


def _changes(sightings: Sequence[Sighting], watched: str) -> int:
    states = [sighting.up[watched] for sighting in sightings if sighting.up is not None and watched in sighting.up]
    return sum(one != other for one, other in pairwise(states))


def _faults(record: Record, expectation: Expectation) -> int:
    if expectation.fault_every_s is None:
        return 1
    return max(1, math.ceil((record.ended - record.began) / expectation.fault_every_s))


def _repeated(ids: Iterable[str]) -> int:
    return sum(times > 1 for times in Counter(ids).values())
