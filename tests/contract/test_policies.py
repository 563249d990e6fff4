"""What the engine expects of every policy: this suite runs for each kind that is registered, ours and others' alike."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from policies.hedge import HedgeAfter
from router.plan import AcceptIf, foreseen
from router.ports import Policy
from router.registry import POLICIES, Registry
from router.snapshot import Snapshot
from router.types import Facts
from tests.unit.samples import MODEL
from tests.unit.worlds import worlds

KINDS = Registry(POLICIES).names()
every_kind = pytest.mark.parametrize("kind", KINDS)

st.register_type_strategy(AcceptIf, st.builds(AcceptIf, st.floats(0, 1)))
st.register_type_strategy(HedgeAfter, st.builds(HedgeAfter, st.floats(0, 1000)))


def options(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any options of a kind, by the types of its fields."""
    hints = get_type_hints(Registry(POLICIES).load(kind))
    drawn_by = {float: st.floats(0, 1)}
    return st.fixed_dictionaries({name: drawn_by.get(hint, st.from_type(hint)) for name, hint in hints.items()})


def made(kind: str, given_options: dict[str, Any]) -> Policy:
    """A policy; options that it refuses are not worth a test."""
    try:
        policy: Policy = Registry(POLICIES).load(kind)(**given_options)
    except ValueError:
        reject()
    return policy


def drawn(kind: str, data: st.DataObject) -> Policy:
    return made(kind, data.draw(options(kind)))


def test_our_own_policies_are_registered() -> None:
    assert {"local-first", "cloud-primary", "split", "fastest", "cheapest"} <= set(KINDS)


@every_kind
@given(worlds(), st.data())
def test_a_plan_has_attempts_or_says_why_not(kind: str, world: tuple[Facts, Snapshot], data: st.DataObject) -> None:
    plan = drawn(kind, data).plan(*world)
    assert plan.attempts or plan.reason.strip()


@every_kind
@given(worlds(), st.data())
def test_a_plan_always_says_why(kind: str, world: tuple[Facts, Snapshot], data: st.DataObject) -> None:
    reason = drawn(kind, data).plan(*world).reason
    assert reason.strip() == reason
    assert reason


@every_kind
@given(worlds(), st.data())
def test_only_candidates_that_are_up_are_named_and_none_twice(
    kind: str, world: tuple[Facts, Snapshot], data: st.DataObject
) -> None:
    facts, snapshot = world
    plan = drawn(kind, data).plan(facts, snapshot)
    candidates = {target.backend: target for target in snapshot.candidates(facts)}
    names = [attempt.backend for attempt in plan.attempts]
    assert len(names) == len(set(names))
    for attempt in plan.attempts:
        assert candidates[attempt.backend].available
        assert attempt.variant == candidates[attempt.backend].variant


@every_kind
@given(worlds(), st.data())
def test_whoever_may_answer_and_is_up_makes_a_plan(
    kind: str, world: tuple[Facts, Snapshot], data: st.DataObject
) -> None:
    facts, snapshot = world
    plan = drawn(kind, data).plan(facts, snapshot)
    assert bool(plan.attempts) == any(target.available for target in snapshot.candidates(facts))


@every_kind
@given(worlds(), st.data())
def test_an_image_is_staged_wherever_it_is_not_taken_as_it_is(
    kind: str, world: tuple[Facts, Snapshot], data: st.DataObject
) -> None:
    facts, snapshot = world
    image = snapshot.models[facts.model].image
    for attempt in drawn(kind, data).plan(facts, snapshot).attempts:
        assert attempt.stages in ((), image.names if image else ())
        if not facts.encoded_image:
            assert attempt.stages == ()
        elif not snapshot.targets[facts.model, attempt.backend].takes_image:
            assert attempt.stages


@every_kind
@given(worlds(), st.data())
def test_it_is_pure(kind: str, world: tuple[Facts, Snapshot], data: st.DataObject) -> None:
    given_options = data.draw(options(kind))
    before = copy.deepcopy(world)
    policy = made(kind, given_options)
    plan = policy.plan(*world)
    assert policy.plan(*world) == plan
    assert made(kind, given_options).plan(*before) == plan
    assert world == before


@every_kind
@given(worlds(), st.data())
def test_reserves_can_be_set_for_it(kind: str, world: tuple[Facts, Snapshot], data: st.DataObject) -> None:
    plan = foreseen(drawn(kind, data).plan(*world), *world)
    reserves = [attempt.reserve_s for attempt in plan.attempts]
    assert reserves == sorted(reserves, reverse=True)


@every_kind
@given(worlds(), st.data())
def test_exploring_is_another_order_of_the_same(kind: str, world: tuple[Facts, Snapshot], data: st.DataObject) -> None:
    plan = drawn(kind, data).plan(*world)
    if plan.explore:
        assert plan.explore != plan.attempts
        assert sorted(a.backend for a in plan.explore) == sorted(a.backend for a in plan.attempts)


@every_kind
@given(st.data())
def test_it_is_a_value(kind: str, data: st.DataObject) -> None:
    given_options = data.draw(options(kind))
    one, other = made(kind, given_options), made(kind, copy.deepcopy(given_options))
    assert one == other
    assert hash(one) == hash(other)
    assert {field.name for field in fields(one)} == given_options.keys()  # type: ignore[arg-type]


@every_kind
@given(st.data())
def test_what_is_wrong_with_a_model_is_nothing_or_a_sentence(kind: str, data: st.DataObject) -> None:
    problem = drawn(kind, data).problem_with(MODEL)
    assert problem is None or problem.strip()
