"""Fastest: the least predicted median wins, trifles change nothing, and little-known backends are looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.fastest import LEAST_BAND_S, Fastest
from policies.reasons import FEW_SAMPLES
from router.snapshot import Snapshot
from tests.unit.policies.views import PHI, TENSORS, snapshot, target


def first(world: Snapshot) -> str:
    return Fastest().plan(TENSORS, world).attempts[0].backend


def test_the_fastest_is_first_and_the_reason_has_the_figures() -> None:
    plan = Fastest().plan(TENSORS, snapshot(target("edge", p50_s=0.09), target("cloud", p50_s=0.02)))
    assert [attempt.backend for attempt in plan.attempts] == ["cloud", "edge"]
    assert plan.reason == "fastest: cloud 20.0 ms, edge 90.0 ms"
    assert not any(attempt.degraded for attempt in plan.attempts)


def test_the_payloads_size_decides_too() -> None:
    world = snapshot(target("edge", p50_s=0.03), target("cloud", p50_s=0.01, per_byte=1e-6))
    assert first(world) == "cloud"
    assert Fastest().plan(TENSORS._replace(payload_bytes=1 << 16), world).attempts[0].backend == "edge"


def test_of_equals_the_one_on_the_premises_is_first() -> None:
    assert first(snapshot(target("cloud", p50_s=0.010), target("edge", p50_s=0.0105))) == "edge"


@given(st.floats(0.005, 1), st.floats(0.84, 1.19))
def test_an_incumbent_stays_while_nobody_is_faster_by_more_than_the_band(p50_s: float, ratio: float) -> None:
    for incumbent in ("edge", "cloud"):
        other = "cloud" if incumbent == "edge" else "edge"
        world = snapshot(target(incumbent, p50_s=p50_s), target(other, p50_s=p50_s * ratio), incumbent=incumbent)
        assert first(world) == incumbent


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=50))
def test_noise_around_a_tie_never_flaps(noise: list[float]) -> None:
    incumbent: str | None = None
    seen = set()
    for factor in noise:
        incumbent = first(
            snapshot(target("edge", p50_s=0.02), target("cloud", p50_s=0.02 * factor), incumbent=incumbent)
        )
        seen.add(incumbent)
    assert len(seen) == 1


def test_less_than_a_millisecond_is_no_reason_to_change() -> None:
    edge, cloud = target("edge", p50_s=LEAST_BAND_S * 0.9), target("cloud", p50_s=0.0001)
    assert first(snapshot(edge, cloud, incumbent="edge")) == "edge"


def test_a_clear_difference_is() -> None:
    assert first(snapshot(target("edge", p50_s=0.05), target("cloud", p50_s=0.02), incumbent="edge")) == "cloud"


def test_one_that_nothing_is_known_of_comes_last_and_is_explored() -> None:
    plan = Fastest().plan(TENSORS, snapshot(target("cloud", p95_s=None), target("edge", p50_s=0.9)))
    assert [attempt.backend for attempt in plan.attempts] == ["edge", "cloud"]
    assert [attempt.backend for attempt in plan.explore] == ["cloud", "edge"]
    assert "cloud not known yet" in plan.reason


def test_what_is_well_known_is_not_explored() -> None:
    edge, cloud = target("edge", p50_s=0.01), target("cloud", p50_s=0.09, samples=FEW_SAMPLES)
    assert Fastest().plan(TENSORS, snapshot(edge, cloud)).explore == ()


def test_restricted_data_stays_and_nobody_up_is_explained() -> None:
    plan = Fastest().plan(PHI, snapshot(target("edge", p50_s=0.9), target("cloud", p50_s=0.01)))
    assert [attempt.backend for attempt in plan.attempts] == ["edge"]
    assert Fastest().plan(TENSORS, snapshot(target("cloud", up=False))).reason == "cloud is down (unplugged)"


@pytest.mark.parametrize("tie_band", [-0.1, 11.0, float("nan")])
def test_a_tie_band_is_a_share(tie_band: float) -> None:
    with pytest.raises(ValueError, match="tie_band"):
        Fastest(tie_band)
