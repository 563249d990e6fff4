"""What becomes of each policy's order while the device is strained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.cheapest import Cheapest
from policies.cloud_primary import CloudPrimary
from policies.fastest import Fastest
from policies.hedge import HedgeAfter
from policies.local_first import LocalFirst
from policies.split import Split
from router.device import Strain
from router.plan import AcceptIf
from router.ports import Policy
from router.snapshot import TargetView
from tests.unit.policies.views import IMAGE, PHI, TENSORS, snapshot, target

DEVICE_FIRST: list[Policy] = [LocalFirst(), Fastest(), Cheapest(), Split(AcceptIf(0.9))]
SHIFTING = [Strain.WARM, Strain.THROTTLED]

device_first = pytest.mark.parametrize("policy", DEVICE_FIRST, ids=lambda policy: type(policy).__name__)
shifting = pytest.mark.parametrize("strain", SHIFTING)

CLOUD = target("cloud", p50_s=0.02, p95_s=0.03, usd=1.0)


def order(policy: Policy, *targets: TargetView) -> list[str]:
    return [attempt.backend for attempt in policy.plan(TENSORS, snapshot(*targets)).attempts]


@device_first
@shifting
def test_the_cloud_goes_first_and_the_reason_says_why(policy: Policy, strain: Strain) -> None:
    assert order(policy, target("edge"), CLOUD) == ["edge", "cloud"]
    plan = policy.plan(TENSORS, snapshot(target("edge", strain=strain), CLOUD))
    assert [attempt.backend for attempt in plan.attempts] == ["cloud", "edge"]
    assert plan.reason.endswith(f"; edge is spared, since the device is {strain.value}")


@device_first
@shifting
def test_what_may_not_leave_does_not(policy: Policy, strain: Strain) -> None:
    plan = policy.plan(PHI, snapshot(target("edge", strain=strain), CLOUD))
    assert [attempt.backend for attempt in plan.attempts] == ["edge"]
    assert "spared" not in plan.reason


@device_first
@shifting
@pytest.mark.parametrize("cloud", [target("cloud", up=False), target("cloud", p50_s=0.2, p95_s=0.2), None])
def test_without_a_cloud_that_helps_nothing_changes(policy: Policy, strain: Strain, cloud: TargetView | None) -> None:
    others = [] if cloud is None else [cloud]
    assert order(policy, target("edge", strain=strain), *others) == order(policy, target("edge"), *others)


@device_first
def test_a_cloud_that_took_over_is_not_given_up_over_a_trifle(policy: Policy) -> None:
    edge, cloud = target("edge", strain=Strain.WARM), target("cloud", p50_s=0.05, p95_s=0.052, usd=1.0)
    for incumbent, first in (("edge", "edge"), ("cloud", "cloud")):
        plan = policy.plan(TENSORS, snapshot(edge, cloud, incumbent=incumbent))
        assert plan.attempts[0].backend == first


@device_first
def test_a_device_that_is_weak_still_answers(policy: Policy) -> None:
    assert order(policy, target("edge", strain=Strain.WEAK), CLOUD) == ["edge", "cloud"]


@shifting
def test_another_machine_on_the_premises_takes_over_first(strain: Strain) -> None:
    other = target("edge-server", p50_s=0.02, p95_s=0.03)
    assert order(LocalFirst(), target("edge", strain=strain), other, CLOUD) == ["edge-server", "cloud", "edge"]
    assert order(CloudPrimary(), target("edge", strain=strain), other) == ["edge-server", "edge"]


def test_splitting_goes_on_to_decide_what_leaves() -> None:
    world = snapshot(target("edge", strain=Strain.WARM), replace(CLOUD, takes_image=True))
    for policy in (Split(), Split(AcceptIf(0.9))):
        plan = policy.plan(IMAGE, world)
        assert [attempt.backend for attempt in plan.attempts] == ["cloud", "edge"]
        assert plan.attempts[0].stages
    assert plan.attempts[1].accept_if == AcceptIf(0.9)


@pytest.mark.parametrize("strain", [Strain.WEAK, *SHIFTING])
def test_no_hedge_starts_on_a_device_that_is_to_be_spared(strain: Strain) -> None:
    for policy in (CloudPrimary(HedgeAfter(5)), Fastest(hedge=HedgeAfter(5))):
        calm = policy.plan(TENSORS, snapshot(target("edge", p50_s=0.1), CLOUD))
        assert calm.attempts[0].backend == "cloud"
        assert calm.attempts[0].hedge_after == 0.005
        strained = policy.plan(TENSORS, snapshot(target("edge", p50_s=0.1, strain=strain), CLOUD))
        assert strained.attempts[0].hedge_after is None


def test_a_hedge_may_still_help_a_weak_device() -> None:
    plan = Fastest(hedge=HedgeAfter(5)).plan(TENSORS, snapshot(target("edge", strain=Strain.WEAK), CLOUD))
    assert [(attempt.backend, attempt.hedge_after) for attempt in plan.attempts] == [("edge", 0.005), ("cloud", 0.005)]


@pytest.mark.parametrize("policy", [Fastest(), Cheapest()])
def test_a_device_that_is_to_be_spared_is_not_explored(policy: Policy) -> None:
    unknown = target("edge", p50_s=0.04, p95_s=0.04, samples=1, usd=2.0)
    assert policy.plan(TENSORS, snapshot(unknown, CLOUD)).explore
    assert not policy.plan(TENSORS, snapshot(replace(unknown, strain=Strain.WEAK), CLOUD)).explore
