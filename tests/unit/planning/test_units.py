"""Quantities: the units that fit together do, the others do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.units import (
    BASES,
    GIGABYTE,
    HOUR,
    INFERENCE,
    KILOWATT_HOUR,
    MILLION,
    MONEY,
    MONTH,
    ONE,
    SECOND,
    WATT,
    YEAR,
    Quantity,
    UnitMismatch,
)

numbers = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e6)
exponents = st.tuples(*[st.integers(-2, 2)] * len(BASES))


def test_a_month_at_five_watts_is_what_the_meter_says() -> None:
    assert (5 * WATT * MONTH).to(KILOWATT_HOUR) == pytest.approx(3.6)
    assert MONTH.to(HOUR) == 720
    assert YEAR.to(MONTH) == 12
    assert (2 * MONEY / HOUR / (200 * INFERENCE / SECOND)).to(MONEY / MILLION) == pytest.approx(2.78, abs=0.005)


@pytest.mark.parametrize(("amount", "unit"), [(MONEY / HOUR, MONEY), (WATT, KILOWATT_HOUR), (GIGABYTE, INFERENCE)])
def test_one_unit_is_not_another(amount: Quantity, unit: Quantity) -> None:
    with pytest.raises(UnitMismatch, match="is not"):
        amount.to(unit)
    with pytest.raises(UnitMismatch):
        amount + unit
    with pytest.raises(UnitMismatch):
        amount - unit


def test_the_mismatch_says_which() -> None:
    with pytest.raises(UnitMismatch, match=r"^money\^1 s\^-1 is not a bare number$"):
        (MONEY / SECOND).number()


@given(numbers, numbers, exponents, exponents)
def test_only_like_adds_to_like(first: float, second: float, one: tuple[int, ...], other: tuple[int, ...]) -> None:
    left, right = Quantity(first, one), Quantity(second, other)
    if one == other:
        assert (left + right).value == first + second
        assert (left - right).value == first - second
    else:
        with pytest.raises(UnitMismatch):
            left + right


@given(positive, positive, exponents, exponents)
def test_dividing_undoes_multiplying(first: float, second: float, one: tuple[int, ...], other: tuple[int, ...]) -> None:
    left, right = Quantity(first, one), Quantity(second, other)
    assert (left * right / right).to(Quantity(1.0, one)) == pytest.approx(first)
    assert (left / left).number() == pytest.approx(1)


def test_arrays_go_through_from_either_side() -> None:
    amounts = np.array([1.0, 2.0])
    for product in (amounts * MONEY, MONEY * amounts):
        assert isinstance(product, Quantity)
        assert list(np.atleast_1d(product.to(MONEY))) == [1.0, 2.0]
    assert list(np.atleast_1d((amounts * ONE).number())) == [1.0, 2.0]
