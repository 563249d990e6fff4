"""Cloud primary: the cloud answers; a local fallback keeps a degraded service alive while it cannot."""

from __future__ import annotations

from dataclasses import dataclass

from policies.hedge import Hedge
from policies.reasons import attempt, nobody, predicted, split_by_site, up, why_not_elsewhere
from policies.strain import relieved, without_extras
from router.plan import Plan
from router.ports import Policy
from router.snapshot import Snapshot
from router.types import Facts


@dataclass(frozen=True, slots=True)
class CloudPrimary(Policy):
    """Asks the cloud; falls back to the device, whose answers are marked as degraded.

    Args:
        hedge: When the device starts beside a cloud that has not answered yet; without it, only after the cloud failed.
    """

    hedge: Hedge | None = None

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """Orders remote targets before local ones and marks the local ones as degraded."""
        model = snapshot.models[facts.model]
        candidates = snapshot.candidates(facts)
        local, remote = map(up, split_by_site(candidates))
        local, relief = relieved(local, facts, snapshot)
        attempts = without_extras(
            (
                *(attempt(target, facts, model, hedge=self.hedge) for target in remote),
                *(attempt(target, facts, model, degraded=True) for target in local),
            ),
            (*remote, *local),
        )
        if not attempts:
            return Plan((), nobody(candidates))
        if remote:
            return Plan(attempts, f"cloud first: {predicted(remote[0], facts)}")
        return Plan(attempts, f"degraded: {why_not_elsewhere(candidates, facts, model)}{relief}")
