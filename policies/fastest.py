"""Fastest: whoever is predicted to answer soonest, and no change of mind over a trifle."""

from __future__ import annotations

from dataclasses import dataclass

from policies.hedge import Hedge
from policies.reasons import another_order, attempt, nobody, seconds, up
from policies.strain import relieved, without_extras
from router.plan import Plan
from router.ports import Policy
from router.snapshot import Snapshot, TargetView
from router.types import Facts

LEAST_BAND_S = 0.001
"""Differences below a millisecond are noise, whatever share of the time they are."""


@dataclass(frozen=True, slots=True)
class Fastest(Policy):
    """Asks the backend with the least predicted median for the payload's size.

    Backends within the tie band of the fastest are as good as it: whoever stood first in the latest plan stays, and
    where nobody did, one on the premises is preferred. A backend whose estimate rests on few samples gets a bounded
    share of the requests first, so that its estimate stays true.

    Args:
        tie_band: Share by which another backend must be faster to take over.
        hedge: When the next backend starts beside one that has not answered yet.
    """

    tie_band: float = 0.2
    hedge: Hedge | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.tie_band <= 10:
            raise ValueError(f"tie_band must be between 0 and 10, not {self.tie_band}")

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """Orders by predicted median; the incumbent first if it is within the tie band of the fastest."""
        model = snapshot.models[facts.model]
        candidates = snapshot.candidates(facts)
        order = sorted(up(candidates), key=lambda target: seconds(target, facts))
        if not order:
            return Plan((), nobody(candidates))
        first = self._first(order, facts, snapshot.incumbents.get(facts))
        order.remove(first)
        order.insert(0, first)
        reason = f"fastest: {', '.join(_median(target, facts) for target in order)}"
        order, relief = relieved(order, facts, snapshot)
        attempts, explore = (
            without_extras((attempt(target, facts, model, hedge=self.hedge) for target in targets), targets)
            for targets in (order, another_order(order))
        )
        return Plan(attempts, reason + relief, explore)

    def _first(self, order: list[TargetView], facts: Facts, incumbent: str | None) -> TargetView:
        best = seconds(order[0], facts)
        enough = best + max(LEAST_BAND_S, self.tie_band * best)
        ties = [target for target in order if seconds(target, facts) <= enough]
        for target in ties:
            if target.backend == incumbent:
                return target
        return next((target for target in ties if target.local), order[0])


def _median(target: TargetView, facts: Facts) -> str:
    if target.latency is None:
        return f"{target.backend} not known yet"
    return f"{target.backend} {seconds(target, facts) * 1000:.1f} ms"
