"""Cheapest: the least predicted cost among those that meet the model's SLO."""

from __future__ import annotations

from dataclasses import dataclass

from policies.reasons import GRACE, another_order, attempt, nobody, seconds, up, usd
from policies.strain import relieved
from router.plan import Plan
from router.ports import Policy
from router.snapshot import Snapshot, TargetView
from router.types import Facts


@dataclass(frozen=True, slots=True)
class Cheapest(Policy):
    """Asks the cheapest backend whose predicted P95 is within the SLO; then the others that are; then by speed.

    Cost is the price of a row and the egress of the payload. One that nothing is known of comes before those that are
    known to miss the SLO. One of which little is known gets a bounded share of the requests first. Has no options.
    """

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """Orders those that meet the SLO by cost, and the others by predicted median."""
        model = snapshot.models[facts.model]
        candidates = snapshot.candidates(facts)
        available = up(candidates)
        if not available:
            return Plan((), nobody(candidates))
        incumbent = snapshot.incumbents.get(facts)

        def meets(target: TargetView) -> bool:
            if target.latency is None:
                return False
            slo_s = model.slo_p95_s * (GRACE if target.backend == incumbent else 1.0)
            return target.latency.p95(facts.payload_bytes) <= slo_s

        meeting = sorted(filter(meets, available), key=lambda target: (usd(target, facts), seconds(target, facts)))
        unknown = [target for target in available if target.latency is None]
        missing = sorted(
            (target for target in available if target not in meeting and target not in unknown),
            key=lambda target: seconds(target, facts),
        )
        order, relief = relieved([*meeting, *unknown, *missing], facts, snapshot)
        attempts, explore = (
            tuple(attempt(target, facts, model) for target in targets) for targets in (order, another_order(order))
        )
        if not meeting:
            reason = f"nobody is predicted to meet the SLO of {model.slo_p95_s * 1000:g} ms, so the fastest"
        else:
            prices = ", ".join(f"{target.backend} ${usd(target, facts) * 1e6:.2f}" for target in meeting)
            reason = f"cheapest that meets the SLO of {model.slo_p95_s * 1000:g} ms, per million: {prices}"
        return Plan(attempts, reason + relief, explore)
