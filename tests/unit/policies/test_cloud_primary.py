"""Cloud primary: the cloud answers, the device keeps a degraded service alive."""

from __future__ import annotations

import math

import pytest

from policies.cloud_primary import CloudPrimary
from policies.hedge import HedgeAfter
from tests.unit.policies.views import IMAGE, PHI, TENSORS, snapshot, target


def test_the_cloud_is_first_and_the_device_degraded() -> None:
    plan = CloudPrimary().plan(TENSORS, snapshot(target("edge", p95_s=0.001), target("cloud", p95_s=0.9)))
    assert [(attempt.backend, attempt.degraded) for attempt in plan.attempts] == [("cloud", False), ("edge", True)]
    assert plan.reason == "cloud first: cloud's predicted P95 is 900.0 ms"


def test_a_cloud_that_is_down_leaves_the_device_and_the_reason_says_degraded() -> None:
    plan = CloudPrimary().plan(TENSORS, snapshot(target("edge"), target("cloud", up=False)))
    assert [(attempt.backend, attempt.degraded) for attempt in plan.attempts] == [("edge", True)]
    assert plan.reason == "degraded: cloud is down (unplugged)"


def test_restricted_data_is_answered_here_as_degraded() -> None:
    plan = CloudPrimary().plan(PHI, snapshot(target("edge"), target("cloud")))
    assert [(attempt.backend, attempt.degraded) for attempt in plan.attempts] == [("edge", True)]
    assert plan.reason == "degraded: data class 'phi' keeps it on the premises"


def test_nobody_up_is_explained() -> None:
    plan = CloudPrimary().plan(TENSORS, snapshot(target("edge", up=False)))
    assert plan.attempts == ()
    assert plan.reason == "edge is down (unplugged)"
    assert CloudPrimary().plan(PHI, snapshot(target("cloud"))).reason.startswith("no backend of the model stands where")


def test_an_unknown_latency_is_said_to_be_unknown() -> None:
    plan = CloudPrimary().plan(TENSORS, snapshot(target("cloud", p95_s=None)))
    assert plan.reason == "cloud first: cloud's P95 is not known yet"


def test_an_image_is_staged_only_where_it_must_be() -> None:
    cloud, edge = CloudPrimary().plan(IMAGE, snapshot(target("edge"), target("cloud", takes_image=True))).attempts
    assert cloud.stages == ()
    assert edge.stages == ("decode", "grayscale", "resize")


def test_a_spent_budget_leaves_the_device_and_the_reason_says_so() -> None:
    plan = CloudPrimary().plan(TENSORS, snapshot(target("edge"), target("cloud", spent=True)))
    assert [attempt.backend for attempt in plan.attempts] == ["edge"]
    assert plan.reason == "degraded: cloud is not asked (its budget is spent)"


def test_the_cloud_is_hedged_after_its_p95_or_a_fixed_time_and_the_device_never() -> None:
    world = snapshot(target("edge"), target("cloud", p95_s=0.08))
    for hedge, after in (("p95", 0.08), (HedgeAfter(20), 0.02), (None, None)):
        cloud, edge = CloudPrimary(hedge).plan(TENSORS, world).attempts  # type: ignore[arg-type]
        assert (cloud.hedge_after, edge.hedge_after) == (after, None)
    (cloud,) = CloudPrimary("p95").plan(TENSORS, snapshot(target("cloud", p95_s=None))).attempts
    assert cloud.hedge_after is None, "nothing is known yet"


@pytest.mark.parametrize("after_ms", [-1.0, math.inf, math.nan])
def test_a_hedge_comes_after_a_time(after_ms: float) -> None:
    with pytest.raises(ValueError, match="after_ms"):
        HedgeAfter(after_ms)
