"""When to start the next attempt beside one that has not answered yet: the option that several policies have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from router.snapshot import TargetView
from router.types import Facts


@dataclass(frozen=True, slots=True)
class HedgeAfter:
    """A fixed time.

    Args:
        after_ms: Milliseconds after which the next attempt starts.
    """

    after_ms: float

    def __post_init__(self) -> None:
        if not 0 <= self.after_ms < math.inf:
            raise ValueError(f"after_ms must be at least 0, not {self.after_ms}")


Hedge = Literal["p95"] | HedgeAfter
"""`p95`: when a backend has taken longer than 95 of 100 calls to it, as predicted for the payload; or a fixed time."""


def hedge_after(hedge: Hedge | None, target: TargetView, facts: Facts) -> float | None:
    """Seconds after which an attempt on this target is hedged; None for never, or where nothing is known yet."""
    if isinstance(hedge, HedgeAfter):
        return hedge.after_ms / 1000
    if hedge is None or target.latency is None:
        return None
    return target.latency.mostly(facts.payload_bytes)
