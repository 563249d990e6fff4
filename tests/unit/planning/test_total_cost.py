"""Every published figure of the cost model, to the cent, and what must hold of any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.ownership import Demand, cost_figures, tco
from planning.price_file import default_prices
from planning.ranges import Nonsense
from planning.total_cost import CostInputs, cloud_cost, edge_cost
from planning.uncertainty import likely
from planning.units import DAY, HOUR, INFERENCE, MONTH, SECOND
from router.pricing import DevicePrice, NodePrice

SECONDS_A_MONTH = 30 * 24 * 3600
INPUTS = likely(cost_figures(default_prices(), Demand(), "reference"))

rates = st.floats(0.001, 1e5)
shares = st.floats(0.01, 1)
amounts = st.floats(0.01, 1e4)


def at(rate: float, **changes: float) -> CostInputs:
    return replace(INPUTS, rate_per_second=rate, **changes)


def test_the_month_of_a_device() -> None:
    cost = edge_cost(INPUTS)
    parts = {name: round(float(part), 2) for name, part in cost.parts_per_month().items()}
    assert parts == {"hardware": 5.56, "spares": 0.0, "power": 0.43, "operations": 4.17}
    # The published sum is that of the rounded parts; unrounded they are a cent less.
    assert round(sum(parts.values()), 2) == 10.16
    assert cost.per_month == pytest.approx(200 / 36 + 5 * 0.72 * 0.12 + 50 / 12)


@pytest.mark.parametrize(("per_month", "quoted"), [(2.16e6, "4.70"), (64.8e6, "0.157")])
def test_both_readings_of_the_devices_throughput(per_month: float, quoted: str) -> None:
    cost = edge_cost(at(per_month / SECONDS_A_MONTH))
    assert cost.machines == 1
    assert f"{cost.per_million:.{len(quoted) - 2}f}" == quoted


def test_both_readings_stand_in_the_result() -> None:
    counted, full = tco().readings[:2]
    assert [counted.per_month, full.per_month] == pytest.approx([2.16e6, 64.8e6])
    assert counted.utilisation == pytest.approx(1 / 30)
    assert full.utilisation == 1
    assert [f"{counted.money_per_million:.2f}", f"{full.money_per_million:.3f}"] == ["4.70", "0.157"]


def test_one_day_at_25_a_second_is_what_the_source_counts_as_a_month() -> None:
    device = default_prices().device
    throughput = device.inferences_per_second.likely * INFERENCE / SECOND
    assert (throughput * DAY).to(INFERENCE) == device.counted_per_month == 2.16e6
    assert (throughput * MONTH).to(INFERENCE) == 64.8e6
    assert tco().demand.rate_per_second == pytest.approx(2.16e6 / SECONDS_A_MONTH)


def test_a_million_on_the_reference_node() -> None:
    a_million_a_month = cloud_cost(at(1e6 / SECONDS_A_MONTH), "by-use")
    busy = a_million_a_month.machines * MONTH
    assert f"{busy.to(HOUR):.2f}" == "1.39"
    assert f"{a_million_a_month.per_month:.2f}" == f"{a_million_a_month.per_million:.2f}" == "2.78"


@pytest.mark.parametrize(
    ("per_hour", "quoted"), [(1.5, "2.08"), (2.0, "2.78"), (4.0, "5.56"), (8.0, "11.11"), (20.0, "27.78")]
)
def test_every_node(per_hour: float, quoted: str) -> None:
    assert f"{cloud_cost(replace(INPUTS, per_hour=per_hour), 'by-use').per_million:.2f}" == quoted


def test_the_price_file_has_the_published_prices() -> None:
    prices = default_prices()
    assert (prices.currency, prices.per_kwh.likely) == ("USD", 0.12)
    device = prices.device
    assert [
        figure.likely for figure in (device.hardware, device.lifetime_years, device.watts, device.operations_per_year)
    ] == [200, 3, 5, 50]
    assert 1000 / device.inferences_per_second.likely == 40
    assert {name: node.per_hour.likely for name, node in prices.nodes.items()} == {
        "spot": 1.5,
        "reference": 2.0,
        "on-demand": 4.0,
        "nvlink": 14,
    }
    assert (prices.nodes["nvlink"].per_hour.low, prices.nodes["nvlink"].per_hour.high) == (8, 20)


@given(rates, shares, amounts, amounts, amounts)
def test_it_is_what_the_gateway_charges(rate: float, share: float, hardware: float, watts: float, rent: float) -> None:
    inputs = at(rate, hardware=hardware, watts=watts, per_hour=rent, node_utilisation=share, bytes_out=1000)
    edge, cloud = edge_cost(inputs), cloud_cost(inputs, "by-use")
    devices = float(edge.machines)
    device = DevicePrice(hardware, 3, watts, 0.12, 50, rate * SECONDS_A_MONTH / devices)
    node = NodePrice(rent, 200, share, 0.09)
    assert edge.per_month == pytest.approx(device.usd_per_month * devices)
    assert edge.per_million == pytest.approx(device.usd_per_inference * 1e6)
    assert cloud.per_million == pytest.approx((node.usd_per_inference + 1000 * node.usd_per_byte_out) * 1e6)


@given(shares)
def test_half_used_costs_twice_as_much(share: float) -> None:
    full, part = (cloud_cost(replace(INPUTS, node_utilisation=used), "by-use") for used in (1.0, share))
    assert part.per_million == pytest.approx(np.asarray(full.per_million) / share)


@given(rates, st.integers(1, 100))
def test_devices_are_whole_and_never_overworked(rate: float, sites: int) -> None:
    devices = float(edge_cost(at(rate, sites=sites, device_utilisation=0.7)).machines)
    assert devices == int(devices) >= sites
    assert rate <= devices * 25 * 0.7 * (1 + 1e-6)
    assert devices == sites or rate > (devices - 1) * 25 * 0.7


@given(rates)
def test_an_idle_node_costs_too_when_it_is_always_on(rate: float) -> None:
    on, used = (cloud_cost(at(rate), billing) for billing in ("always-on", "by-use"))
    assert on.machines == int(on.machines) >= 1
    assert np.asarray(on.per_month) >= np.asarray(used.per_month) * (1 - 1e-6)


def test_spares_are_bought_but_neither_run_nor_visited() -> None:
    spared, plain = edge_cost(replace(INPUTS, spares=0.5)), edge_cost(INPUTS)
    assert spared.per_month == pytest.approx(np.asarray(plain.per_month) + 0.5 * 200 / 36)


@given(st.lists(rates, min_size=1, max_size=5))
def test_a_curve_is_its_points(some: list[float]) -> None:
    curve = replace(INPUTS, rate_per_second=np.array(some))
    for cost, single in (
        (edge_cost(curve), [edge_cost(at(rate)) for rate in some]),
        (cloud_cost(curve, "always-on"), [cloud_cost(at(rate), "always-on") for rate in some]),
    ):
        assert list(np.atleast_1d(cost.per_million)) == pytest.approx([float(one.per_million) for one in single])


@pytest.mark.parametrize(
    ("field", "value", "sensible"),
    [
        ("sites", "3", "'3' is not sensible; it must be a whole number from 1 to 1,000,000 sites"),
        ("rate_per_second", 10**400, r"10+\.\.\. is not sensible; it must be above 0 and up to"),
        ("bytes_out", None, "None is not sensible; it must be from 0 to"),
        ("billing", "never", "'never' is not known; it must be 'by-use' or 'always-on'"),
    ],
)
def test_a_nonsensical_demand_is_refused(field: str, value: Any, sensible: str) -> None:
    with pytest.raises(Nonsense, match=f"^{field}: {sensible}"):
        Demand(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "sensible"),
    [
        ("seed", -1, "-1 is not sensible; it must be a whole number from 0 to 4,294,967,295"),
        ("seed", 0.5, "0.5 is not sensible; it must be a whole number from 0 to"),
        ("samples", 0, "0 is not sensible; it must be a whole number from 1 to 1,000,000 draws"),
        ("samples", -5, "-5 is not sensible; it must be a whole number from 1 to 1,000,000 draws"),
        ("samples", 1e9, r"1e\+09 is not sensible; it must be a whole number from 1 to 1,000,000 draws"),
    ],
)
def test_nonsensical_draws_are_refused(field: str, value: Any, sensible: str) -> None:
    with pytest.raises(Nonsense, match=f"^{field}: {sensible}"):
        tco(**{field: value})


def test_one_draw_is_enough_to_be_counted() -> None:
    assert tco(seed=2**32 - 1, samples=1).spread.samples == 1
