"""The residency guard's invariants, against plans that mean harm."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from router import guard
from router.plan import Attempt, Plan
from router.snapshot import Snapshot
from router.types import Facts
from tests.unit.worlds import attempts, worlds

BACKENDS = ("w", "x", "y", "z", "unknown", "", "*", "on-premises")
orders = st.lists(attempts(BACKENDS), max_size=6).map(tuple)
plans = st.builds(Plan, orders, st.just("trust me"), orders)


@given(worlds(), plans)
def test_nothing_forbidden_or_unknown_gets_through(world: tuple[Facts, Snapshot], plan: Plan) -> None:
    facts, snapshot = world
    permitted, _ = guard.permit(plan, facts, snapshot)
    for attempt in permitted.attempts + permitted.explore:
        target = snapshot.targets[facts.model, attempt.backend]
        assert target in snapshot.models[facts.model].targets
        assert target.site in snapshot.sites[facts.data_class]
        assert attempt.stages or target.takes_image or not facts.encoded_image


@given(worlds(), plans)
def test_it_drops_nothing_else_and_keeps_the_order(world: tuple[Facts, Snapshot], plan: Plan) -> None:
    facts, snapshot = world
    targets = {target.backend: target for target in snapshot.models[facts.model].targets}
    permitted, blocked = guard.permit(plan, facts, snapshot)

    def fine(attempt: Attempt) -> bool:
        target = targets.get(attempt.backend)
        if target is None or target.site not in snapshot.sites[facts.data_class]:
            return False
        return not facts.encoded_image or target.takes_image or bool(attempt.stages)

    assert list(permitted.attempts) == [a for a in plan.attempts if fine(a)]
    assert list(permitted.explore) == [a for a in plan.explore if fine(a)]
    harmful = [a.backend for a in plan.attempts + plan.explore if not fine(a)]
    assert list(blocked) == list(dict.fromkeys(harmful))


@given(worlds(), plans)
def test_it_says_what_it_left_out(world: tuple[Facts, Snapshot], plan: Plan) -> None:
    facts, snapshot = world
    permitted, blocked = guard.permit(plan, facts, snapshot)
    assert permitted.reason.startswith(plan.reason)
    assert (permitted.reason == plan.reason) == (not blocked)
    for backend in blocked:
        assert backend in permitted.reason


@given(worlds(), plans)
def test_it_is_pure_and_a_second_pass_changes_nothing(world: tuple[Facts, Snapshot], plan: Plan) -> None:
    facts, snapshot = world
    before = copy.deepcopy((facts, snapshot, plan))
    permitted, _ = guard.permit(plan, facts, snapshot)
    assert guard.permit(permitted, facts, snapshot) == (permitted, ())
    assert (facts, snapshot, plan) == before
