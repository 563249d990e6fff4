"""Deadline arithmetic: what is kept back so that a fallback still fits."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import plan
from router.plan import MARGIN_S, AcceptIf, Attempt, Plan, foreseen
from router.snapshot import Snapshot
from router.types import Facts
from tests.unit.worlds import worlds

NOW = 1000.0
durations = st.floats(0, 100)


@st.composite
def orders(draw: st.DrawFn) -> list[Attempt]:
    """Attempts as the engine foresees them: each keeps back at least what those behind it are expected to take."""
    reserve = MARGIN_S
    done: list[Attempt] = []
    for _ in range(draw(st.integers(1, 4))):
        expected = draw(durations)
        done.append(Attempt("b", "v", reserve_s=reserve, expected_s=expected))
        reserve += expected + draw(durations) + MARGIN_S
    return done[::-1]


def cut_off(order: list[Attempt], index: int, now: float, deadline: float) -> float | None:
    """The cut-off in a plan whose steps have no targets."""
    return plan.cut_off([(attempt, None) for attempt in order], index, now, deadline)


def turns(order: list[Attempt], deadline: float) -> list[tuple[Attempt, float]]:
    """The attempts that would have a turn if each were used up to its cut-off, and that cut-off."""
    now, taken = NOW, []
    for index, attempt in enumerate(order):
        limit = cut_off(order, index, now, deadline)
        if limit is not None:
            taken.append((attempt, limit))
            now = max(now, limit)
    return taken


@given(orders(), durations)
def test_a_fallback_that_fits_still_fits_after_whatever_came_before_it_was_cut_off(
    order: list[Attempt], left: float
) -> None:
    deadline = NOW + left
    last = order[-1]
    if last.expected_s < left - MARGIN_S:
        before = [limit for attempt, limit in turns(order, deadline) if attempt is not last]
        assert max(before, default=NOW) + last.expected_s <= deadline - MARGIN_S + 1e-6


@given(orders(), st.floats(-100, 100))
def test_no_cut_off_is_later_than_the_margin_before_the_deadline_unless_it_would_not_fit_then(
    order: list[Attempt], left: float
) -> None:
    for index, attempt in enumerate(order):
        limit = cut_off(order, index, NOW, NOW + left)
        if limit is not None and limit > NOW + left - MARGIN_S + 1e-6:
            assert limit == NOW + left
            assert attempt.expected_s >= left - MARGIN_S - 1e-6


def test_when_it_got_late_the_last_one_is_asked_all_the_same() -> None:
    edge = Attempt("edge", "v", reserve_s=MARGIN_S, expected_s=0.0001)
    assert cut_off([edge], 0, NOW, NOW + MARGIN_S / 2) == NOW + MARGIN_S / 2


@given(orders(), st.floats(-100, 100))
def test_somebody_always_has_a_turn(order: list[Attempt], left: float) -> None:
    assert turns(order, NOW + left)


@given(orders(), durations)
def test_one_is_skipped_only_for_one_behind_it_that_fits(order: list[Attempt], left: float) -> None:
    for index, attempt in enumerate(order):
        skipped = cut_off(order, index, NOW, NOW + left) is None
        behind = any(later.expected_s < left - later.reserve_s for later in order[index + 1 :])
        assert skipped == (behind and attempt.expected_s >= left - attempt.reserve_s)


def test_a_fallback_that_would_not_fit_anyway_takes_nothing_from_the_attempt_before_it() -> None:
    cloud = Attempt("cloud", "v", reserve_s=1.0, expected_s=0.1)
    order = [cloud, Attempt("edge", "v", reserve_s=MARGIN_S, expected_s=0.9)]
    assert cut_off(order, 0, NOW, NOW + 0.2) == NOW + 0.2 - MARGIN_S


def test_the_plan_starts_with_the_one_that_fits() -> None:
    cloud = Attempt("cloud", "v", reserve_s=0.03, expected_s=0.5)
    order = [cloud, Attempt("edge", "v", reserve_s=0.005, expected_s=0.01)]
    assert cut_off(order, 0, NOW, NOW + 0.25) is None
    assert cut_off(order, 1, NOW, NOW + 0.25) == NOW + 0.25 - 0.005


def test_an_attempt_whose_answer_may_not_be_final_is_not_hedged() -> None:
    with pytest.raises(ValueError, match="hedge_after"):
        Attempt("b", "v", accept_if=AcceptIf(0.5), hedge_after=0.1)
    with pytest.raises(ValueError, match="hedge_after"):
        Attempt("b", "v", hedge_after=-0.1)


@given(worlds(), st.data())
def test_the_reserve_is_the_p99_and_margin_of_all_that_follows(
    world: tuple[Facts, Snapshot], data: st.DataObject
) -> None:
    facts, snapshot = world
    targets = data.draw(st.lists(st.sampled_from(snapshot.models[facts.model].targets), max_size=4))
    plan = Plan(tuple(Attempt(target.backend, target.variant) for target in targets), "why")
    before = copy.deepcopy((plan, snapshot))
    reserved = foreseen(plan, facts, snapshot)
    assert [(a.backend, a.variant) for a in reserved.attempts] == [(a.backend, a.variant) for a in plan.attempts]
    assert reserved.reason == plan.reason
    for index, attempt in enumerate(reserved.attempts):
        behind = targets[index + 1 :]
        p99s = [target.latency.nearly_always(facts.payload_bytes) if target.latency else 0.0 for target in behind]
        assert attempt.reserve_s == pytest.approx(sum(p99s) + MARGIN_S * (len(behind) + 1))
        own = targets[index].latency
        assert attempt.expected_s == (own.usual(facts.payload_bytes) if own else 0.0)
    assert (plan, snapshot) == before


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        AcceptIf(confidence)


@given(worlds(), st.data(), st.floats(0, 0.05))
def test_a_busy_device_keeps_more_back_for_each_switch(
    world: tuple[Facts, Snapshot], data: st.DataObject, lag_s: float
) -> None:
    facts, snapshot = world
    targets = data.draw(st.lists(st.sampled_from(snapshot.models[facts.model].targets), max_size=4))
    plan = Plan(tuple(Attempt(target.backend, target.variant) for target in targets), "why")
    idle, busy = foreseen(plan, facts, snapshot), foreseen(plan, facts, snapshot, MARGIN_S + lag_s)
    for index, (one, other) in enumerate(zip(idle.attempts, busy.attempts, strict=True)):
        switches = len(targets) - index
        assert other.reserve_s == pytest.approx(one.reserve_s + switches * lag_s)
