"""Cheapest: the least predicted cost among those that meet the SLO (50 ms in these worlds)."""

from __future__ import annotations

from dataclasses import replace

from policies.cheapest import Cheapest
from policies.reasons import FEW_SAMPLES
from router.snapshot import Snapshot
from tests.unit.policies.views import PHI, SLO_S, TENSORS, snapshot, target


def order(world: Snapshot) -> list[str]:
    return [attempt.backend for attempt in Cheapest().plan(TENSORS, world).attempts]


def test_the_cheapest_that_meets_the_slo_is_first() -> None:
    world = snapshot(target("edge", usd=5e-6), target("cloud", usd=3e-6), target("slow", usd=1e-6, p95_s=0.2))
    plan = Cheapest().plan(TENSORS, world)
    assert [attempt.backend for attempt in plan.attempts] == ["cloud", "edge", "slow"]
    assert plan.reason == "cheapest that meets the SLO of 50 ms, per million: cloud $3.00, edge $5.00"


def test_egress_counts() -> None:
    cloud = replace(target("cloud", usd=3e-6), usd_per_byte_out=1e-8)
    assert order(snapshot(target("edge", usd=5e-6), cloud)) == ["edge", "cloud"]


def test_where_nobody_meets_the_slo_the_fastest_is_first_and_the_reason_says_so() -> None:
    world = snapshot(target("edge", usd=1e-6, p50_s=0.4), target("cloud", usd=9e-6, p50_s=0.1))
    assert order(world) == ["cloud", "edge"]
    assert Cheapest().plan(TENSORS, world).reason == "nobody is predicted to meet the SLO of 50 ms, so the fastest"


def test_an_incumbent_at_the_line_keeps_its_place() -> None:
    edge, cloud = target("edge", usd=1e-6, p95_s=SLO_S * 1.05), target("cloud", usd=9e-6)
    assert order(snapshot(edge, cloud)) == ["cloud", "edge"]
    assert order(snapshot(edge, cloud, incumbent="edge")) == ["edge", "cloud"]
    slow = target("edge", usd=1e-6, p95_s=0.2)
    assert order(snapshot(slow, cloud, incumbent="edge")) == ["cloud", "edge"]


def test_one_that_nothing_is_known_of_is_no_promise_but_is_explored() -> None:
    plan = Cheapest().plan(TENSORS, snapshot(target("edge", usd=5e-6), target("cloud", usd=1e-6, p95_s=None)))
    assert [attempt.backend for attempt in plan.attempts] == ["edge", "cloud"]
    assert [attempt.backend for attempt in plan.explore] == ["cloud", "edge"]
    few = target("cloud", usd=9e-6, samples=FEW_SAMPLES - 1)
    assert Cheapest().plan(TENSORS, snapshot(target("edge", usd=5e-6), few)).explore[0].backend == "cloud"


def test_a_spent_budget_and_a_data_class_rule_out_the_cheapest() -> None:
    edge = target("edge", usd=5e-6)
    assert order(snapshot(edge, target("cloud", usd=1e-6, spent=True))) == ["edge"]
    plan = Cheapest().plan(PHI, snapshot(edge, target("cloud", usd=1e-6)))
    assert [attempt.backend for attempt in plan.attempts] == ["edge"]
