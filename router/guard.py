"""The residency guard: the last word on where data goes, after the policy and whatever the policy said.

Invariants:
- No attempt that it lets through names a backend on a site where the data class may not go.
- No attempt that it lets through names a backend that does not have the model.
- It never adds an attempt or changes the order.
"""

from __future__ import annotations

from dataclasses import replace

from router.plan import Plan
from router.snapshot import Snapshot
from router.types import Facts


def permit(plan: Plan, facts: Facts, snapshot: Snapshot) -> tuple[Plan, tuple[str, ...]]:
    """Drops every attempt that the data class forbids or that names a backend without the model.

    Returns:
        The plan that may be carried out, and the names of the backends that were dropped.
    """
    allowed = {target.backend for target in snapshot.candidates(facts)}
    blocked = tuple(attempt.backend for attempt in plan.attempts if attempt.backend not in allowed)
    if not blocked:
        return plan, ()
    kept = tuple(attempt for attempt in plan.attempts if attempt.backend in allowed)
    reason = f"{plan.reason}; {', '.join(blocked)} left out: not permitted for data class {facts.data_class!r}"
    return replace(plan, attempts=kept, reason=reason), blocked
