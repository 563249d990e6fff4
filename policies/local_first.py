"""Local first: the device answers; the cloud is asked when the device cannot, or when only it meets the SLO."""

from __future__ import annotations

from dataclasses import dataclass

from policies.reasons import attempt, meets, misses, nobody, predicted, split_by_site, up, why_down
from policies.strain import relieved
from router.plan import Plan
from router.ports import Policy
from router.snapshot import Snapshot
from router.types import Facts


@dataclass(frozen=True, slots=True)
class LocalFirst(Policy):
    """Runs on the device; falls back to the cloud. Has no options."""

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """Local targets before remote ones, unless only a remote one is predicted to meet the SLO, now or soon."""
        model = snapshot.models[facts.model]
        candidates = snapshot.candidates(facts)
        local, remote = map(up, split_by_site(candidates))
        faster = [target for target in remote if meets(target, facts, model.slo_p95_s)]
        if not (local or remote):
            return Plan((), nobody(candidates))
        if local and faster and all(misses(target, facts, model.slo_p95_s) for target in local):
            order = [*faster, *local, *(target for target in remote if target not in faster)]
            reason = (
                f"{predicted(local[0], facts)}, above the SLO of {model.slo_p95_s * 1000:g} ms, "
                f"which {faster[0].backend} meets: {predicted(faster[0], facts)}"
            )
        elif local:
            order = [*local, *remote]
            reason = f"local first: {predicted(local[0], facts)}"
        else:
            order = remote
            reason = why_down(candidates) or "nothing on the premises has this model"
        order, relief = relieved(order, facts, snapshot)
        return Plan(tuple(attempt(target, facts, model) for target in order), reason + relief)
