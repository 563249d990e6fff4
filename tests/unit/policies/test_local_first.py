"""Local first: the device answers, unless only the cloud meets the SLO."""

from __future__ import annotations

import pytest

from policies.local_first import LocalFirst
from router.snapshot import TargetView
from tests.unit.policies.views import IMAGE, PHI, SLO_S, TENSORS, snapshot, target

SLOW, FAST = SLO_S * 2, SLO_S / 2


def order(*targets: TargetView) -> list[str]:
    return [attempt.backend for attempt in LocalFirst().plan(TENSORS, snapshot(*targets)).attempts]


@pytest.mark.parametrize(
    ("edge", "cloud", "first"),
    [
        (FAST, FAST, "edge"),
        (FAST, SLOW, "edge"),
        (SLOW, FAST, "cloud"),
        (SLOW, SLOW, "edge"),
        (SLOW, None, "edge"),
        (None, FAST, "edge"),
        (None, None, "edge"),
        (SLO_S, FAST, "edge"),
        (SLOW, SLO_S, "cloud"),
    ],
)
def test_the_cloud_is_first_only_where_the_device_misses_the_slo_and_the_cloud_meets_it(
    edge: float | None, cloud: float | None, first: str
) -> None:
    other = "edge" if first == "cloud" else "cloud"
    assert order(target("cloud", p95_s=cloud), target("edge", p95_s=edge)) == [first, other]


def test_going_to_the_cloud_is_explained_with_both_numbers() -> None:
    plan = LocalFirst().plan(TENSORS, snapshot(target("edge", p95_s=0.08), target("cloud", p95_s=0.02)))
    assert plan.reason == (
        "edge's predicted P95 is 80.0 ms, above the SLO of 50 ms, which cloud meets: cloud's predicted P95 is 20.0 ms"
    )


def test_staying_is_explained_too() -> None:
    plan = LocalFirst().plan(TENSORS, snapshot(target("edge", p95_s=0.01), target("cloud")))
    assert plan.reason == "local first: edge's predicted P95 is 10.0 ms"


def test_the_prediction_is_for_this_payload() -> None:
    cloud = target("cloud", p95_s=0.01, per_byte=1e-6)
    world = snapshot(target("edge", p95_s=SLOW), cloud)
    assert LocalFirst().plan(TENSORS, world).attempts[0].backend == "cloud"
    assert LocalFirst().plan(TENSORS._replace(payload_bytes=1 << 20), world).attempts[0].backend == "edge"


def test_all_local_ones_have_to_miss_it() -> None:
    assert order(target("edge1", p95_s=SLOW), target("edge2", p95_s=FAST), target("cloud")) == [
        "edge1",
        "edge2",
        "cloud",
    ]


def test_remote_ones_that_miss_it_too_come_last() -> None:
    targets = (target("slow-cloud", p95_s=SLOW), target("cloud", p95_s=FAST), target("edge", p95_s=SLOW))
    assert order(*targets) == ["cloud", "edge", "slow-cloud"]


def test_a_device_that_is_down_leaves_the_cloud_and_says_so() -> None:
    plan = LocalFirst().plan(TENSORS, snapshot(target("edge", up=False), target("cloud")))
    assert [attempt.backend for attempt in plan.attempts] == ["cloud"]
    assert plan.reason == "edge is down (unplugged)"


def test_restricted_data_stays_however_slow_the_device_is() -> None:
    plan = LocalFirst().plan(PHI, snapshot(target("edge", p95_s=SLOW), target("cloud", p95_s=FAST)))
    assert [attempt.backend for attempt in plan.attempts] == ["edge"]


def test_nobody_up_is_explained() -> None:
    plan = LocalFirst().plan(TENSORS, snapshot(target("edge", up=False), target("cloud", up=False)))
    assert plan.attempts == ()
    assert plan.reason == "edge is down (unplugged); cloud is down (unplugged)"


def test_no_answer_is_marked_as_degraded_and_any_is_accepted() -> None:
    for attempt in LocalFirst().plan(TENSORS, snapshot(target("edge"), target("cloud"))).attempts:
        assert not attempt.degraded
        assert attempt.accept_if is None


def test_an_image_goes_to_the_cloud_as_it_is_where_that_is_taken() -> None:
    local, remote = LocalFirst().plan(IMAGE, snapshot(target("edge"), target("cloud", takes_image=True))).attempts
    assert local.stages == ("decode", "grayscale", "resize")
    assert remote.stages == ()
