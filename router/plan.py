"""The plan: what to try, in which order, and when an answer is good enough. One small algebra for all policies.

Fallback is the next attempt. A cascade is `accept_if`: an answer below the threshold is held, and the next attempt
is asked for those rows. Split is `stages`: they run on the device before the backend is asked. An answer from an
attempt marked `degraded`, or a held one that nobody could better, says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from router.latency import LatencyPrediction
from router.snapshot import Snapshot
from router.types import Facts

MARGIN_S = 0.005
"""Seconds kept, beside the fallback's own time, for the switch to it and for writing the answer."""


@dataclass(frozen=True, slots=True)
class AcceptIf:
    """When an answer is final.

    Args:
        confidence: The least confidence, 0 to 1, at which a row of the answer is final.
    """

    confidence: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence is between 0 and 1, not {self.confidence}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One backend to ask.

    Args:
        backend: Its name.
        variant: Label of the model's variant there.
        stages: The image stages to run on the device first; empty where the payload goes as it came.
        accept_if: When its answer is final; None accepts any.
        degraded: Whether its answer is a lesser one.
        reserve_s: Seconds before the deadline at which it is cut off, so that what follows still fits.
    """

    backend: str
    variant: str
    stages: tuple[str, ...] = ()
    accept_if: AcceptIf | None = None
    degraded: bool = False
    reserve_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Attempts in order, and the reason for them in words. Without attempts, the reason says why there are none."""

    attempts: tuple[Attempt, ...]
    reason: str


def cut_off(deadline: float, now: float, reserve_s: float) -> float:
    """When an attempt that starts now must end, monotonic seconds.

    It ends `reserve_s` before the deadline, so that its fallback still fits. A reserve of more than half of the
    time left is capped at that: a slow fallback does not take the preferred backend's chance away.
    """
    return deadline - min(reserve_s, max(0.0, deadline - now) / 2)


def with_reserves(plan: Plan, facts: Facts, snapshot: Snapshot) -> Plan:
    """Sets each attempt's reserve to the margin, and P99 and margin of each attempt behind it.

    A fallback whose latency is not known yet adds the margin alone. The last attempt keeps the margin too: an answer
    has to be written, and a held one or an error is of use only to a client that still waits.
    """
    reserve = MARGIN_S
    attempts: list[Attempt] = []
    for attempt in reversed(plan.attempts):
        attempts.append(replace(attempt, reserve_s=reserve))
        reserve += _p99(snapshot.targets[facts.model, attempt.backend].latency, facts) + MARGIN_S
    return replace(plan, attempts=tuple(reversed(attempts)))


def _p99(latency: LatencyPrediction | None, facts: Facts) -> float:
    return latency.p99(facts.payload_bytes) if latency else 0.0
