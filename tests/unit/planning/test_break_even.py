"""Who is cheaper changes where the result says so, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.break_even import break_evens, first_break_even
from planning.total_cost import Billing, CostInputs, cloud_cost, edge_cost
from tests.unit.planning.test_total_cost import INPUTS

UP_TO = 500.0

inputs = st.builds(
    lambda hardware, device, share, sites, rent, node, size: replace(
        INPUTS,
        hardware=hardware,
        device_per_second=device,
        device_utilisation=share,
        sites=sites,
        per_hour=rent,
        node_per_second=node,
        bytes_out=size,
    ),
    st.floats(50, 5000),
    st.floats(1, 50),
    st.floats(0.1, 1),
    st.integers(1, 5),
    st.floats(0.05, 20),
    st.floats(20, 500),
    st.floats(0, 1e5),
)
billings: st.SearchStrategy[Billing] = st.sampled_from(["by-use", "always-on"])


def edge_is_cheaper(case: CostInputs, billing: Billing, rate: float) -> bool:
    at = replace(case, rate_per_second=rate)
    return bool(edge_cost(at).per_month < cloud_cost(at, billing).per_month)


def test_the_reference_breaks_even_where_its_device_has_paid_for_itself() -> None:
    (only,) = break_evens(INPUTS, "by-use", UP_TO)
    month = 200 / 36 + 5 * 0.72 * 0.12 + 50 / 12
    assert only.rate_per_second == pytest.approx(month / (2 / 720_000) / (30 * 24 * 3600))
    assert only.cheaper_above == "edge"


def test_a_node_that_is_always_on_never_beats_one_device() -> None:
    assert break_evens(INPUTS, "always-on", UP_TO) == ()
    assert edge_is_cheaper(INPUTS, "always-on", UP_TO)


def test_a_second_device_can_make_the_cloud_cheaper_again() -> None:
    dear = replace(INPUTS, device_per_second=2.0)
    changes = break_evens(dear, "by-use", 20.0)
    assert [change.cheaper_above for change in changes[:3]] == ["edge", "cloud", "edge"]
    assert changes[1].rate_per_second == pytest.approx(2.0)


def test_a_node_that_is_added_with_a_device_but_for_rounding_is_added_with_it() -> None:
    device = replace(INPUTS, hardware=50, device_per_second=20.3, device_utilisation=1.0, node_utilisation=1.0)
    together = replace(device, node_per_second=20.3)
    nearly = replace(device, node_per_second=float(np.nextafter(20.3, 21.0)))
    with np.errstate(all="raise"):
        assert break_evens(nearly, "always-on", UP_TO) == break_evens(together, "always-on", UP_TO)


@given(inputs, billings, st.lists(st.floats(0.01, 0.99), min_size=1, max_size=20))
def test_between_two_changes_nobody_overtakes(case: CostInputs, billing: Billing, places: list[float]) -> None:
    changes = break_evens(case, billing, UP_TO)
    assert [change.rate_per_second for change in changes] == sorted(change.rate_per_second for change in changes)
    for place in places:
        rate = place * UP_TO
        if any(abs(change.rate_per_second - rate) < 1e-6 * UP_TO for change in changes):
            continue
        below = [change for change in changes if change.rate_per_second < rate]
        above = [change for change in changes if change.rate_per_second > rate]
        if below:
            assert edge_is_cheaper(case, billing, rate) == (below[-1].cheaper_above == "edge")
        elif above:
            assert edge_is_cheaper(case, billing, rate) == (above[0].cheaper_above == "cloud")
        else:
            assert edge_is_cheaper(case, billing, rate) == edge_is_cheaper(case, billing, UP_TO / 2)


@given(inputs)
def test_the_first_break_even_in_closed_form_is_the_one_that_is_found(case: CostInputs) -> None:
    closed = float(first_break_even(case))
    found = next((change for change in break_evens(case, "by-use", 1e5) if change.cheaper_above == "edge"), None)
    if np.isnan(closed):
        assert found is None
    elif found is not None:
        assert found.rate_per_second == pytest.approx(closed, rel=1e-6)
