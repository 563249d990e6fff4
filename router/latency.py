"""What a backend's latency will be, learnt from what it was. Pure: samples and times come in as arguments, reads
never mutate.

Invariants:
- A prediction is never negative, and never falls as the payload grows.
- P50 <= P95 <= P99, for network, compute and total alike.
- Without samples there is no prediction (None), which is not the same as a slow one.
- What is older than `FORGET_AFTER_S` does not count: a backend that was slow once is not slow for ever.
- A network that got slower or faster is believed at the next round trip, not when enough calls have found out: samples
  hold what a call took beyond the round trip at its time, and a prediction adds the round trip as it is now.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from router.recent import RecentCalls, size_class

WINDOW = 256
"""How many of the latest samples count: at 100 requests/s those of the last 2.5 s."""

FORGET_AFTER_S = 60.0

FRESH_FOR_S = 15.0
"""A backend that was not asked for so long is asked something made up, so that a prediction never rests on nothing."""

ROUND_TRIPS = 2
"""Of so many the least counts: a single slow one may be a busy processor's."""

ENOUGH_TIMES_USUAL = 1.5
"""A caller that allows so many times the usual time has been patient enough."""

ACCIDENT = 4.0
"""A single slowest call that took so many times as long as the next one is an accident, not a P99 of few samples."""

LEAST_SPREAD_BYTES = 4096
"""Payload sizes that differ by less say nothing about bandwidth: noise would be taken for it, and extrapolated."""


class Quantiles(NamedTuple):
    """Seconds that half, 95 % and 99 % of the samples stayed within."""

    p50: float
    p95: float
    p99: float


class _Sample(NamedTuple):
    """One call; network and total time without the round trip at its time."""

    at: float
    payload_bytes: int
    network_s: float
    compute_s: float
    total_s: float
    completed: bool


@dataclass(frozen=True, slots=True)
class LatencyPrediction:
    """What the next call will take.

    Args:
        network: Network time at zero payload, seconds; the round trip as it is now is in it.
        compute: Compute and queue time, seconds.
        total: Both together at zero payload, seconds. Not the sum of the two: quantiles do not add.
        seconds_per_byte: What each byte of payload adds to the network time.
        samples: How many samples it rests on.
        completed: The total at zero payload over the calls that were not cut off, seconds; None if all were.
        completed_per_byte: What each byte of payload added to the network time of those, seconds.
        of_late: Median seconds that the latest calls took, by size class of their payload.
    """

    network: Quantiles
    compute: Quantiles
    total: Quantiles
    seconds_per_byte: float
    samples: int
    completed: Quantiles | None = None
    completed_per_byte: float = 0.0
    of_late: Mapping[int, float] = field(default_factory=dict)

    def p50(self, payload_bytes: int) -> float:
        """Median seconds for a payload of this size."""
        return self.total.p50 + self.seconds_per_byte * payload_bytes

    def p95(self, payload_bytes: int) -> float:
        """95th percentile in seconds for a payload of this size."""
        return self.total.p95 + self.seconds_per_byte * payload_bytes

    def p99(self, payload_bytes: int) -> float:
        """99th percentile in seconds for a payload of this size."""
        return self.total.p99 + self.seconds_per_byte * payload_bytes

    def usual(self, payload_bytes: int) -> float:
        """What calls with a payload of this size took of late, or else the median of calls that ended; 0 if none did.

        What never ends is the breaker's business: if it counted here, a backend that hung three times would be passed
        over for want of time, and nobody would find out that it is well again.
        """
        of_late = self.of_late.get(size_class(payload_bytes))
        if of_late is not None:
            return of_late
        return 0.0 if self.completed is None else self.completed.p50 + self.completed_per_byte * payload_bytes

    def mostly(self, payload_bytes: int) -> float:
        """95th percentile of the same, seconds."""
        return 0.0 if self.completed is None else self.completed.p95 + self.completed_per_byte * payload_bytes

    def nearly_always(self, payload_bytes: int) -> float:
        """99th percentile of the same, seconds."""
        return 0.0 if self.completed is None else self.completed.p99 + self.completed_per_byte * payload_bytes

    def suffices(self, seconds: float, payload_bytes: int) -> bool:
        """Whether a call that did not end within so many seconds was slow: half as long again as usual.

        Not the P99: of few samples that is the slowest, and one slow call would excuse a backend that hangs.
        """
        return seconds >= ENOUGH_TIMES_USUAL * self.usual(payload_bytes)


def _quantiles(values: Sequence[float]) -> Quantiles:
    """Nearest-rank quantiles of a non-empty sequence."""
    ordered = sorted(values)
    n = len(ordered)
    return Quantiles(*(ordered[math.ceil(q * n) - 1] for q in (0.50, 0.95, 0.99)))


def _without_accident(values: list[float]) -> list[float]:
    """The values, but for a slowest one that stands apart."""
    if len(values) < 3:
        return values
    *rest, next_to_slowest, slowest = sorted(values)
    return [*rest, next_to_slowest] if slowest > ACCIDENT * next_to_slowest else values


def _totals(samples: Sequence[_Sample], slope: float, rtt: float) -> list[float]:
    """What each sample's call would take in total at zero payload and with the round trip as it is now."""
    return [rtt + max(0.0, sample.total_s - slope * sample.payload_bytes) for sample in samples]


def _slope(samples: Sequence[_Sample]) -> float:
    """Least-squares slope of network time over payload size, seconds per byte; 0 where sizes hardly vary."""
    sizes = [sample.payload_bytes for sample in samples]
    if not sizes or max(sizes) - min(sizes) < LEAST_SPREAD_BYTES:
        return 0.0
    n = len(samples)
    mean_x = sum(sizes) / n
    mean_y = sum(sample.network_s for sample in samples) / n
    variance = sum((x - mean_x) ** 2 for x in sizes)
    covariance = sum((s.payload_bytes - mean_x) * (s.network_s - mean_y) for s in samples)
    return max(0.0, covariance / variance)


class LatencyEstimator:
    """The latest samples of one model on one backend, and the prediction that follows from them.

    Attributes:
        round_trip_s: Seconds to the backend and back without work there: the least of the latest, but no less than a
            round trip that is still unanswered.
    """

    __slots__ = ("_prediction", "_recent", "_round_trips", "_samples", "round_trip_s")

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=WINDOW)
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self.round_trip_s = 0.0
        self._recent = RecentCalls()
        self._prediction: LatencyPrediction | None = None

    def record(self, now: float, payload_bytes: int, network_s: float, compute_s: float) -> None:
        """Adds a call that ended `now`; `compute_s` includes its queue time."""
        self._recent.record(now, payload_bytes, self._add(now, payload_bytes, network_s, compute_s, True))

    def record_at_least(self, now: float, payload_bytes: int, network_s: float, compute_s: float) -> None:
        """Adds a call that was cut off `now`: it would have taken at least that long."""
        self._add(now, payload_bytes, network_s, compute_s, False)

    def record_late(self, now: float, payload_bytes: int, seconds: float) -> None:
        """Adds that a call which was cut off ended `now` after all: what it really took."""
        beyond_s = seconds - min(self._round_trips, default=0.0)
        self._recent.record(now, payload_bytes, max(0.0, beyond_s))

    def vouched(self, payload_bytes: int) -> None:
        """Learns that a backend which was away is back, as a probe with a payload of this size has found."""
        self._recent.vouched(payload_bytes)

    def answered_after(self, seconds: float) -> None:
        """Learns of a round trip that was answered."""
        self._round_trips.append(seconds)
        self._waited(0.0)

    def unanswered_for(self, seconds: float) -> None:
        """Learns of a round trip that has been unanswered for so long."""
        self._waited(seconds)

    def never_answered(self) -> None:
        """Learns that a round trip was given up: those before it say nothing about the next."""
        self._round_trips.clear()
        self._waited(0.0)

    def _waited(self, unanswered_s: float) -> None:
        self.round_trip_s = max(min(self._round_trips, default=0.0), unanswered_s)

    def _add(self, now: float, payload_bytes: int, network_s: float, compute_s: float, completed: bool) -> float:
        """Adds a call. Returns what it took beyond the round trip, seconds."""
        beyond_s = network_s - self.round_trip_s
        if beyond_s < 0.0:
            beyond_s = 0.0
        total_s = beyond_s + compute_s
        self._samples.append(_Sample(now, payload_bytes, beyond_s, compute_s, total_s, completed))
        return total_s

    def outdated(self, now: float) -> bool:
        """Whether the oldest sample is to be forgotten."""
        return bool(self._samples) and self._samples[0].at < now - FORGET_AFTER_S

    def fresh(self, now: float, least: int) -> bool:
        """Whether the newest sample is, and there are at least so many."""
        return len(self._samples) >= least and self._samples[-1].at >= now - FRESH_FOR_S

    def refresh(self, now: float) -> None:
        """Forgets what is old and recomputes the prediction; called beside the request path."""
        while self.outdated(now):
            self._samples.popleft()
        samples = tuple(self._samples)
        if not samples:
            self._prediction = None
            return
        completed = [sample for sample in samples if sample.completed]
        rtt, slope = self.round_trip_s, _slope(samples)
        completed_slope = slope if len(completed) == len(samples) else _slope(completed)
        self._prediction = LatencyPrediction(
            network=_quantiles([rtt + max(0.0, s.network_s - slope * s.payload_bytes) for s in samples]),
            compute=_quantiles([s.compute_s for s in samples]),
            total=_quantiles(_totals(samples, slope, rtt)),
            seconds_per_byte=slope,
            samples=len(samples),
            completed=_quantiles(_without_accident(_totals(completed, completed_slope, rtt))) if completed else None,
            completed_per_byte=completed_slope,
            of_late={key: rtt + s for key, s in self._recent.medians(now - FORGET_AFTER_S).items()},
        )

    @property
    def prediction(self) -> LatencyPrediction | None:
        """The prediction as of the last `refresh`, or None before the first sample."""
        return self._prediction
