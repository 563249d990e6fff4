"""The world in force and the plans that were made against it: looked up on the hot path, made anew beside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from router import guard
from router.deployment import ModelEntry
from router.device import DeviceHealth, DeviceView, Watch
from router.errors import InternalError, NoBackendAvailable, ResidencyForbids, RouterError
from router.execution import Step
from router.generation import World
from router.plan import MARGIN_S, Plan, foreseen
from router.types import EncodedImage, Facts, InferenceRequest, round_up_to_power_of_two

log = logging.getLogger(__name__)

LAG_KEPT = 0.99
"""What is left of the greatest lag at each look: half of it after seven seconds."""

LONGEST_LAG_S = 0.05
"""More would take too much of a deadline; a device that is busier than that has to shed."""

RETRY_WHEN_SPENT_S = 60.0
"""When to come back to a backend whose budget is spent: a new day or an edit of the policy file may have helped."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan ready to be carried out: guarded, with reserves, its targets looked up.

    Args:
        facts: What it was made from.
        policy: Name of the policy that made it.
        model: The model.
        plan: The plan.
        steps: Its attempts with their targets.
        explore: The steps of its other order, or empty.
        blocked: Backends that the residency guard took out of it.
    """

    facts: Facts
    policy: str
    model: ModelEntry
    plan: Plan
    steps: tuple[Step, ...]
    explore: tuple[Step, ...]
    blocked: tuple[str, ...]


class Planner:
    """Plans for the world in force, kept until it is replaced.

    Attributes:
        world: What is in force, as of the latest look at it.
        lag_s: How late this process was of late to do what was due: a busy device keeps so much more for the switch.
    """

    def __init__(self) -> None:
        self.world = World.empty()
        self.lag_s = 0.0
        self._plans: dict[tuple[str, str, int, bool], Prepared] = {}
        self._incumbents: dict[Facts, str] = {}
        self._watch = Watch()

    def adopt(self, world: World) -> None:
        """Puts another generation in force; nobody stood first in its plans yet."""
        self._plans, self._incumbents = {}, {}
        self._replace(world.sensing(self.world.snapshot.device))

    def refresh(self, now: float) -> None:
        """Brings the world up to date; plans made against the old one are forgotten."""
        world = self.world.refreshed(now)
        if world is not self.world:
            self._replace(world)

    def sense(self, health: DeviceHealth, now: float) -> None:
        """Learns how the device is, and plans by it from now on."""
        before = self._watch.strain
        self._watch = self._watch.after(health, now, self.world.generation.deployment.device)
        strain = self._watch.strain
        if strain is not before:
            celsius = "unknown" if health.soc_c is None else f"{health.soc_c:.1f} °C"
            log.warning("the device is %s, after %s; its temperature is %s", strain.value, before.value, celsius)
        world = self.world.sensing(DeviceView(health, strain))
        if strain is before:
            self.world = world  # plans follow from the strain, not from each reading
        else:
            self._replace(world)

    def ran_late(self, seconds: float) -> None:
        """Learns how late the latest look at the world was. What was long ago counts less and less."""
        self.lag_s = min(LONGEST_LAG_S, max(seconds, self.lag_s * LAG_KEPT))

    def prepared_for(self, request: InferenceRequest) -> Prepared:
        """The guarded plan for a request, as of the world now.

        Raises:
            InternalError: The policy failed.
        """
        size, image = request.payload_bytes, isinstance(request.payload, EncodedImage)
        key = (request.model, request.data_class, (size - 1).bit_length() if size else 0, image)
        prepared = self._plans.get(key)  # by what the facts follow from: they take longer to make than to find
        if prepared is None:
            facts = Facts(request.model, request.data_class, round_up_to_power_of_two(size), image)
            prepared = self._plans[key] = self._make(facts)
        return prepared

    def refusal(self, prepared: Prepared, data_class: str, now: float) -> RouterError:
        """Why a plan has no steps, as an error for whoever asked."""
        snapshot = self.world.snapshot
        model = prepared.model.spec.name
        candidates = [target for target in snapshot.models[model].targets if target.site in snapshot.sites[data_class]]
        if not candidates:
            sites = ", ".join(sorted(snapshot.sites[data_class])) or "no site"
            return ResidencyForbids(
                f"Data of class {data_class!r} may go to {sites} only, and {model} has no backend there. "
                "Give the model a variant on such a site, or send the request without what makes it so."
            )
        retry_after = min(
            RETRY_WHEN_SPENT_S if target.spent else max(0.0, target.retry_at - now) for target in candidates
        )
        return NoBackendAvailable(f"{model}: {prepared.plan.reason}.", retry_after_s=retry_after)

    def _replace(self, world: World) -> None:
        """Puts a newer world in the place of the old one, whose plans are forgotten but for whom they put first."""
        for prepared in self._plans.values():
            if prepared.steps:
                self._incumbents[prepared.facts] = prepared.steps[0][0].backend
        self._plans = {}
        self.world = world.remembering(self._incumbents)

    def _make(self, facts: Facts) -> Prepared:
        world = self.world
        deployment = world.generation.deployment
        name = deployment.route(facts.model, facts.data_class)
        if name is None:
            plan = Plan((), f"no route matches model {facts.model!r} with data class {facts.data_class!r}")
            return Prepared(facts, "none", deployment.models[facts.model], plan, (), (), ())
        try:
            wished = deployment.policies[name].plan(facts, world.snapshot)
        except Exception:
            log.exception("policy %s failed", name)
            raise InternalError(f"Policy {name!r} failed; the gateway's log has the details.") from None
        plan, blocked = guard.permit(wished, facts, world.snapshot)
        plan = foreseen(plan, facts, world.snapshot, MARGIN_S + self.lag_s)
        targets = world.generation.targets
        steps, explore = (
            tuple((attempt, targets[facts.model, attempt.backend]) for attempt in order)
            for order in (plan.attempts, plan.explore)
        )
        return Prepared(facts, name, deployment.models[facts.model], plan, steps, explore, blocked)
