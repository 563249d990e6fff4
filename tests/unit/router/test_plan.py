"""Deadline arithmetic: what is kept back so that a fallback still fits."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.plan import MARGIN_S, AcceptIf, Attempt, Plan, cut_off, with_reserves
from router.snapshot import Snapshot
from router.types import Facts
from tests.unit.worlds import worlds

instants = st.floats(0, 1e6)
durations = st.floats(0, 1e4)


@given(instants, durations, durations)
def test_the_cut_off_lies_between_half_of_the_time_left_and_the_deadline(
    now: float, left: float, reserve: float
) -> None:
    deadline = now + left
    limit = cut_off(deadline, now, reserve)
    assert now + (deadline - now) / 2 - 1e-6 <= limit <= deadline


@given(instants, durations, durations)
def test_a_reserve_of_up_to_half_is_kept_whole(now: float, left: float, share: float) -> None:
    reserve = left / 2 * min(1.0, share)
    assert cut_off(now + left, now, reserve) == pytest.approx(now + left - reserve, abs=1e-6)


@given(instants, durations, durations, durations)
def test_a_greater_reserve_never_cuts_off_later(now: float, left: float, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert cut_off(now + left, now, large) <= cut_off(now + left, now, small)


@given(instants, durations, durations)
def test_a_deadline_that_has_passed_leaves_no_time(now: float, ago: float, reserve: float) -> None:
    assert cut_off(now - ago, now, reserve) <= now


@given(worlds(), st.data())
def test_the_reserve_is_the_p99_and_margin_of_all_that_follows(
    world: tuple[Facts, Snapshot], data: st.DataObject
) -> None:
    facts, snapshot = world
    targets = data.draw(st.lists(st.sampled_from(snapshot.models[facts.model].targets), max_size=4))
    plan = Plan(tuple(Attempt(target.backend, target.variant) for target in targets), "why")
    before = copy.deepcopy((plan, snapshot))
    reserved = with_reserves(plan, facts, snapshot)
    assert [(a.backend, a.variant) for a in reserved.attempts] == [(a.backend, a.variant) for a in plan.attempts]
    assert reserved.reason == plan.reason
    for index, attempt in enumerate(reserved.attempts):
        behind = targets[index + 1 :]
        p99s = [target.latency.p99(facts.payload_bytes) if target.latency else 0.0 for target in behind]
        assert attempt.reserve_s == pytest.approx(sum(p99s) + MARGIN_S * (len(behind) + 1))
    assert (plan, snapshot) == before


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        AcceptIf(confidence)
