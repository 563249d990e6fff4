"""Split: stages here, model there; with a threshold, the device's sure answers are final."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.split import Split
from router.plan import AcceptIf
from tests.unit.policies.views import IMAGE, PHI, TENSORS, snapshot, target
from tests.unit.samples import MODEL

STAGES = ("decode", "grayscale", "resize")
SURE = AcceptIf(0.95)


def test_without_a_threshold_the_cloud_answers_on_stages_run_here() -> None:
    plan = Split().plan(IMAGE, snapshot(target("edge"), target("cloud", takes_image=True)))
    assert [(a.backend, a.stages, a.accept_if, a.degraded) for a in plan.attempts] == [
        ("cloud", STAGES, None, False),
        ("edge", STAGES, None, True),
    ]
    assert plan.reason == "stages here, model in the cloud: cloud's predicted P95 is 10.0 ms"


def test_tensors_need_no_stages() -> None:
    plan = Split(SURE).plan(TENSORS, snapshot(target("edge"), target("cloud")))
    assert [attempt.stages for attempt in plan.attempts] == [(), ()]


def test_with_a_threshold_the_device_is_asked_first_and_its_sure_answers_are_final() -> None:
    plan = Split(SURE).plan(IMAGE, snapshot(target("cloud", takes_image=True), target("edge")))
    assert [(a.backend, a.stages, a.accept_if, a.degraded) for a in plan.attempts] == [
        ("edge", STAGES, SURE, False),
        ("cloud", STAGES, None, False),
    ]
    assert plan.reason == "confidence of at least 0.95 is final here, the rest goes to the cloud"


def test_one_device_is_unsure_enough() -> None:
    plan = Split(SURE).plan(TENSORS, snapshot(target("edge1"), target("edge2"), target("cloud1"), target("cloud2")))
    assert [attempt.backend for attempt in plan.attempts] == ["edge1", "cloud1", "cloud2"]


@pytest.mark.parametrize("accept_if", [None, SURE])
def test_a_cloud_that_is_down_is_named(accept_if: AcceptIf | None) -> None:
    plan = Split(accept_if).plan(TENSORS, snapshot(target("edge"), target("cloud", up=False)))
    assert [attempt.backend for attempt in plan.attempts] == ["edge"]
    assert plan.reason == "cloud is down (unplugged)"


@pytest.mark.parametrize("accept_if", [None, SURE])
def test_restricted_data_stays_here(accept_if: AcceptIf | None) -> None:
    plan = Split(accept_if).plan(PHI, snapshot(target("edge"), target("cloud")))
    assert [attempt.backend for attempt in plan.attempts] == ["edge"]
    assert plan.reason == "data class 'phi' keeps it on the premises"


@pytest.mark.parametrize("accept_if", [None, SURE])
def test_a_device_that_is_down_leaves_the_cloud(accept_if: AcceptIf | None) -> None:
    plan = Split(accept_if).plan(TENSORS, snapshot(target("edge", up=False), target("cloud")))
    assert [attempt.backend for attempt in plan.attempts] == ["cloud"]


def test_nobody_up_is_explained() -> None:
    plan = Split(SURE).plan(TENSORS, snapshot(target("edge", up=False), target("cloud", up=False)))
    assert plan.attempts == ()
    assert plan.reason == "edge is down (unplugged); cloud is down (unplugged)"


def test_a_threshold_needs_a_model_that_says_how_sure_it_is() -> None:
    unsure = replace(MODEL, confidence_output=None)
    assert Split().problem_with(unsure) is None
    assert Split(SURE).problem_with(MODEL) is None
    problem = Split(SURE).problem_with(unsure)
    assert problem is not None
    assert "`confidence` output" in problem
    assert "m names none" in problem
