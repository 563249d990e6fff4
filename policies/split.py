"""Split: the device does the light part, the cloud the heavy one, so that fewer bytes leave.

Split means partition here: the image's stages, and with `accept_if` the answers that the edge model is sure of, stay
on the device. A share of the traffic is another thing, and not what this policy does. A device that is too warm runs
the stages all the same: they decide what leaves the site, and its temperature must not.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.reasons import attempt, nobody, predicted, split_by_site, up, why_not_elsewhere
from policies.strain import relieved
from router.model import ModelSpec
from router.plan import AcceptIf, Attempt, Plan
from router.ports import Policy
from router.snapshot import ModelView, Snapshot, TargetView
from router.types import Facts


@dataclass(frozen=True, slots=True)
class Split(Policy):
    """Image stages run on the device, the model in the cloud.

    Args:
        accept_if: With it, the edge model answers first, and only rows below the threshold go to the cloud. The
            model needs a `confidence` output. Without it, the cloud answers all.
    """

    accept_if: AcceptIf | None = None

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """Stages here; the edge model first if its confident answers are final; then the cloud; then degraded."""
        model = snapshot.models[facts.model]
        candidates = snapshot.candidates(facts)
        local, remote = map(up, split_by_site(candidates))
        local, relief = relieved(local, facts, snapshot)
        if self.accept_if is None:
            order = [*remote, *local]
            reason = f"stages here, model in the cloud: {predicted(remote[0], facts)}" if remote else ""
        else:
            order, relief = relieved([*local[:1], *remote], facts, snapshot)
            reason = f"confidence of at least {self.accept_if.confidence:g} is final here, the rest goes to the cloud"
        if not order:
            return Plan((), nobody(candidates))
        if not remote:
            reason = why_not_elsewhere(candidates, facts, model)
        elif self.accept_if is None:
            relief = ""
        return Plan(tuple(self._attempt(target, facts, model) for target in order), reason + relief)

    def _attempt(self, target: TargetView, facts: Facts, model: ModelView) -> Attempt:
        if target.local:
            return attempt(target, facts, model, accept_if=self.accept_if, degraded=self.accept_if is None)
        return attempt(target, facts, model, stages_here=True)

    def problem_with(self, model: ModelSpec) -> str | None:
        """A cascade needs to know how sure the edge model is."""
        if self.accept_if is None or model.confidence_output is not None:
            return None
        return f"accept_if needs a model with a `confidence` output, and {model.name} names none"
