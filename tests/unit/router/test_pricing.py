"""The prices that we quote, derived here from their statement alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.pricing import DevicePrice, NodePrice

MILLION = 1_000_000
DEVICE = DevicePrice(
    hardware_usd=200,
    lifetime_years=3,
    watts=5,
    usd_per_kwh=0.12,
    operations_usd_per_year=50,
    inferences_per_month=2.16e6,
)
NODE = NodePrice(node_usd_per_hour=2, inferences_per_second=200)


def device_usd_per_million(inferences_per_month: float) -> float:
    """$200 over 36 months, 5 W for 30 days of 24 hours at $0.12 per kWh, $50 a year; over the month's inferences."""
    write_off = 200 / 36
    electricity = 5 * 24 * 30 / 1000 * 0.12
    operations = 50 / 12
    return (write_off + electricity + operations) / inferences_per_month * MILLION


@pytest.mark.parametrize(("per_month", "quoted"), [(2.16e6, "4.70"), (64.8e6, "0.157")])
def test_the_device_costs_what_we_quote(per_month: float, quoted: str) -> None:
    price = replace(DEVICE, inferences_per_month=per_month).usd_per_inference * MILLION
    assert price == pytest.approx(device_usd_per_million(per_month))
    assert f"{price:.{len(quoted) - 2}f}" == quoted


def test_the_node_costs_what_we_quote() -> None:
    price = NODE.usd_per_inference * MILLION
    assert price == pytest.approx(2 / (200 * 60 * 60) * MILLION)
    assert f"{price:.2f}" == "2.78"


def test_at_one_inference_a_second_of_30_days_the_month_is_the_one_that_we_quote() -> None:
    assert 2.16e6 * 1.2 == 60 * 60 * 24 * 30


@given(st.floats(0.01, 1))
def test_a_node_half_used_costs_twice_as_much(utilisation: float) -> None:
    price = replace(NODE, utilisation=utilisation)
    assert price.usd_per_inference == pytest.approx(NODE.usd_per_inference / utilisation)


def test_egress_is_priced_by_the_byte_and_nothing_leaves_the_device() -> None:
    assert replace(NODE, egress_usd_per_gb=0.09).usd_per_byte_out * 1_000_000_000 == pytest.approx(0.09)
    assert NODE.usd_per_byte_out == 0
    assert DEVICE.usd_per_byte_out == 0


NAN, INFINITY = float("nan"), float("inf")
DEVICE_NONSENSE = [
    *((field, value) for field in ("lifetime_years", "inferences_per_month") for value in (0.0, -1.0, NAN)),
    *(
        (field, value)
        for field in ("hardware_usd", "watts", "usd_per_kwh", "operations_usd_per_year")
        for value in (-0.01, NAN, INFINITY)
    ),
]
NODE_NONSENSE = [
    *(("inferences_per_second", value) for value in (0.0, -1.0, NAN)),
    *(("utilisation", value) for value in (0.0, -0.5, 1.01, NAN)),
    *((field, value) for field in ("node_usd_per_hour", "egress_usd_per_gb") for value in (-0.01, NAN, INFINITY)),
]


@pytest.mark.parametrize(("field", "value"), DEVICE_NONSENSE)
def test_a_nonsensical_device_is_refused_by_name_of_the_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(DEVICE, **{field: value})


@pytest.mark.parametrize(("field", "value"), NODE_NONSENSE)
def test_a_nonsensical_node_is_refused_by_name_of_the_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(NODE, **{field: value})
