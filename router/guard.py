"""The residency guard: the last word on where data goes, after the policy and whatever the policy said.

Invariants:
- No attempt that it lets through names a backend on a site where the data class may not go.
- No attempt that it lets through names a backend without the model, or sends an image to one that takes none.
- It never adds an attempt or changes the order.
"""

from __future__ import annotations

from dataclasses import replace

from router.plan import Attempt, Plan
from router.snapshot import Snapshot
from router.types import Facts


def permit(plan: Plan, facts: Facts, snapshot: Snapshot) -> tuple[Plan, tuple[str, ...]]:
    """Drops every attempt that the data class forbids or that names a backend without the model.

    An attempt that would send an image to a backend that takes none is dropped as well.

    Returns:
        The plan that may be carried out, and the names of the backends that were dropped.
    """
    candidates = {target.backend: target for target in snapshot.candidates(facts)}
    blocked: list[str] = []

    def may(attempt: Attempt) -> bool:
        target = candidates.get(attempt.backend)
        permitted = target is not None and bool(attempt.stages or target.takes_image or not facts.encoded_image)
        if not permitted:
            blocked.append(attempt.backend)
        return permitted

    attempts, explore = (tuple(filter(may, order)) for order in (plan.attempts, plan.explore))
    if not blocked:
        return plan, ()
    names = tuple(dict.fromkeys(blocked))
    reason = f"{plan.reason}; {', '.join(names)} left out, not permitted with data class {facts.data_class!r}"
    return replace(plan, attempts=attempts, explore=explore, reason=reason), names
