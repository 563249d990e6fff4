"""What a backend's latency will be, learnt from what it was. Pure: samples come in as arguments, reads never mutate.

Invariants:
- A prediction is never negative, and never falls as the payload grows.
- P50 <= P95 <= P99, for network, compute and total alike.
- Without samples there is no prediction (None), which is not the same as a slow one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WINDOW = 256
"""How many of the latest samples count: at 100 requests/s the last 2.5 s, at 1 probe/s the last 4 minutes."""


class Quantiles(NamedTuple):
    """Seconds that half, 95 % and 99 % of the samples stayed within."""

    p50: float
    p95: float
    p99: float


class _Sample(NamedTuple):
    payload_bytes: int
    network_s: float
    compute_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class LatencyPrediction:
    """What the next call will take.

    Args:
        network: Network time at zero payload, seconds.
        compute: Compute and queue time, seconds.
        total: Both together at zero payload, seconds. Not the sum of the two: quantiles do not add.
        seconds_per_byte: What each byte of payload adds to the network time.
        samples: How many samples it rests on.
    """

    network: Quantiles
    compute: Quantiles
    total: Quantiles
    seconds_per_byte: float
    samples: int

    def p50(self, payload_bytes: int) -> float:
        """Median seconds for a payload of this size."""
        return self.total.p50 + self.seconds_per_byte * payload_bytes

    def p95(self, payload_bytes: int) -> float:
        """95th percentile in seconds for a payload of this size."""
        return self.total.p95 + self.seconds_per_byte * payload_bytes

    def p99(self, payload_bytes: int) -> float:
        """99th percentile in seconds for a payload of this size."""
        return self.total.p99 + self.seconds_per_byte * payload_bytes


def _quantiles(values: Sequence[float]) -> Quantiles:
    """Nearest-rank quantiles of a non-empty sequence."""
    ordered = sorted(values)
    n = len(ordered)
    return Quantiles(*(ordered[math.ceil(q * n) - 1] for q in (0.50, 0.95, 0.99)))


def _slope(samples: Sequence[_Sample]) -> float:
    """Least-squares slope of network time over payload size, seconds per byte; 0 where sizes do not vary."""
    n = len(samples)
    mean_x = sum(s.payload_bytes for s in samples) / n
    mean_y = sum(s.network_s for s in samples) / n
    variance = sum((s.payload_bytes - mean_x) ** 2 for s in samples)
    if variance == 0:
        return 0.0
    covariance = sum((s.payload_bytes - mean_x) * (s.network_s - mean_y) for s in samples)
    return max(0.0, covariance / variance)


class LatencyEstimator:
    """The latest samples of one model on one backend, and the prediction that follows from them."""

    __slots__ = ("_prediction", "_samples", "_stale")

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=WINDOW)
        self._prediction: LatencyPrediction | None = None
        self._stale = False

    def record(self, payload_bytes: int, network_s: float, compute_s: float) -> None:
        """Adds a finished call; `compute_s` includes its queue time."""
        self._samples.append(_Sample(payload_bytes, network_s, compute_s, network_s + compute_s))
        self._stale = True

    def record_at_least(self, payload_bytes: int, elapsed_s: float) -> None:
        """Adds a call that was cut off after `elapsed_s`: it would have taken at least that long."""
        self.record(payload_bytes, elapsed_s, 0.0)

    @property
    def stale(self) -> bool:
        """Whether samples came since the last `refresh`."""
        return self._stale

    def refresh(self) -> None:
        """Recomputes the prediction from the window; called beside the request path."""
        if not self._stale:
            return
        samples = tuple(self._samples)
        slope = _slope(samples)
        self._prediction = LatencyPrediction(
            network=_quantiles([max(0.0, s.network_s - slope * s.payload_bytes) for s in samples]),
            compute=_quantiles([s.compute_s for s in samples]),
            total=_quantiles([max(0.0, s.total_s - slope * s.payload_bytes) for s in samples]),
            seconds_per_byte=slope,
            samples=len(samples),
        )
        self._stale = False

    @property
    def prediction(self) -> LatencyPrediction | None:
        """The prediction as of the last `refresh`, or None before the first sample."""
        return self._prediction
