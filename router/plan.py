"""The plan: what to try, in which order, and when an answer is good enough. One small algebra for all policies.

Fallback is the next attempt. A hedge is `hedge_after`: the next attempt starts early, and the first answer wins. A
cascade is `accept_if`: an answer below the threshold is held, and the next attempt
is asked for those rows. Split is `stages`: they run on the device before the backend is asked. An answer from an
attempt marked `degraded`, or a held one that nobody could better, says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from router.snapshot import Snapshot
from router.types import Facts

MARGIN_S = 0.01
"""Seconds kept, beside the fallback's own time, for the switch to it and for writing the answer, on an idle device."""


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
        hedge_after: Seconds after which the next attempt starts beside it, if it has not answered; None waits for its
            end. Not together with `accept_if`.
        reserve_s: Seconds before the deadline at which it is cut off, so that what follows still fits.
        expected_s: Seconds that it usually takes; 0 where nothing is known.
        mostly_s: Seconds that 95 of 100 calls to it take at most; 0 where nothing is known.
    """

    backend: str
    variant: str
    stages: tuple[str, ...] = ()
    accept_if: AcceptIf | None = None
    degraded: bool = False
    hedge_after: float | None = None
    reserve_s: float = 0.0
    expected_s: float = 0.0
    mostly_s: float = 0.0

    def __post_init__(self) -> None:
        if self.hedge_after is not None and (self.hedge_after < 0 or self.accept_if is not None):
            raise ValueError("hedge_after is at least 0, and not for an attempt whose answer may not be final")


@dataclass(frozen=True, slots=True)
class Plan:
    """Attempts in order, and the reason for them in words. Without attempts, the reason says why there are none.

    Args:
        attempts: What to try.
        reason: Why.
        explore: Another order, which a bounded share of the requests takes so that estimates stay fresh, or empty.
    """

    attempts: tuple[Attempt, ...]
    reason: str
    explore: tuple[Attempt, ...] = ()


def cut_off(steps: Sequence[tuple[Attempt, object]], index: int, now: float, deadline: float) -> float | None:
    """When the attempt at `index` must end if it starts now, monotonic seconds; None where its turn is to be skipped.

    It ends its reserve before the deadline, so that its fallback still fits. Where that leaves less than it is
    expected to take, an attempt behind it that does fit has the turn. Where none does, a reserve would help nobody,
    and it gets all the time but the margin; or all of it, where only so it fits: better an answer than a margin.
    """
    left = deadline - now
    attempt = steps[index][0]
    if attempt.expected_s < left - attempt.reserve_s:
        return deadline - attempt.reserve_s
    if any(later.expected_s < left - later.reserve_s for later, _ in steps[index + 1 :]):
        return None
    margin = steps[-1][0].reserve_s
    fits_without_it = left - margin <= attempt.expected_s < left
    return deadline if fits_without_it else deadline - margin


def foreseen(plan: Plan, facts: Facts, snapshot: Snapshot, margin_s: float = MARGIN_S) -> Plan:
    """The plan with what is predicted of each attempt: how long it takes, and what has to be kept back for the next.

    The reserve is the margin, and P99 and margin of each attempt behind it. A fallback whose latency is not known yet
    adds the margin alone. The last attempt keeps the margin too: an answer has to be written, and a held one or an
    error is of use only to a client that still waits.
    """
    return replace(
        plan,
        attempts=_foreseen(plan.attempts, facts, snapshot, margin_s),
        explore=_foreseen(plan.explore, facts, snapshot, margin_s),
    )


def _foreseen(attempts: Sequence[Attempt], facts: Facts, snapshot: Snapshot, margin_s: float) -> tuple[Attempt, ...]:
    reserve = margin_s
    done: list[Attempt] = []
    for attempt in reversed(attempts):
        latency = snapshot.targets[facts.model, attempt.backend].latency
        size = facts.payload_bytes
        expected, mostly = (latency.usual(size), latency.mostly(size)) if latency else (0.0, 0.0)
        done.append(replace(attempt, reserve_s=reserve, expected_s=expected, mostly_s=mostly))
        reserve += margin_s + (latency.nearly_always(size) if latency else 0.0)
    return tuple(reversed(done))
