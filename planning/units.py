"""Amounts that know their unit, so that a formula that mixes hours with months or dollars with watts fails at once.

Invariants:

- A quantity is held in base units: money, seconds, joules, inferences, bytes. Only `to` gives a bare number back.
- Adding or comparing needs equal dimensions; multiplying adds the exponents, dividing subtracts them.
- The number may be an array: the same formula serves one case, a curve and ten thousand draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Amount = float | NDArray[np.float64]

BASES = ("money", "s", "J", "inference", "byte")


class UnitMismatch(TypeError):
    """Two amounts were put together whose units do not fit."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, or an array of them, with its dimension.

    Args:
        value: In base units.
        exponents: Of money, seconds, joules, inferences and bytes.
    """

    __array_ufunc__: ClassVar[None] = None  # lets `array * quantity` come to `__rmul__`, not to each element

    value: Amount
    exponents: tuple[int, ...]

    def __add__(self, other: Quantity) -> Quantity:
        self._same(other)
        return Quantity(self.value + other.value, self.exponents)

    def __sub__(self, other: Quantity) -> Quantity:
        self._same(other)
        return Quantity(self.value - other.value, self.exponents)

    def __mul__(self, other: Quantity | Amount) -> Quantity:
        if not isinstance(other, Quantity):
            return Quantity(self.value * other, self.exponents)
        return Quantity(self.value * other.value, _added(self.exponents, other.exponents))

    __rmul__ = __mul__

    def __truediv__(self, other: Quantity | Amount) -> Quantity:
        if not isinstance(other, Quantity):
            return Quantity(self.value / other, self.exponents)
        return Quantity(self.value / other.value, _subtracted(self.exponents, other.exponents))

    def to(self, unit: Quantity) -> Amount:
        """How many of `unit` this is.

        Raises:
            UnitMismatch: It is something else.
        """
        self._same(unit)
        return self.value / unit.value

    def number(self) -> Amount:
        """The bare number of what has no unit, such as a ratio.

        Raises:
            UnitMismatch: It has one.
        """
        return self.to(ONE)

    def _same(self, other: Quantity) -> None:
        if self.exponents != other.exponents:
            raise UnitMismatch(f"{_words(self.exponents)} is not {_words(other.exponents)}")


@cache  # formulas have few units, and are worked out thousands of times
def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(mine + its for mine, its in zip(one, other, strict=True))


@cache
def _subtracted(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(mine - its for mine, its in zip(one, other, strict=True))


def _words(exponents: tuple[int, ...]) -> str:
    parts = [f"{base}^{power}" for base, power in zip(BASES, exponents, strict=True) if power]
    return " ".join(parts) or "a bare number"


def _base(name: str) -> Quantity:
    return Quantity(1.0, tuple(int(base == name) for base in BASES))


ONE = Quantity(1.0, (0,) * len(BASES))
MONEY = _base("money")
SECOND = _base("s")
HOUR = 3600 * SECOND
DAY = 24 * HOUR
MONTH = 30 * DAY
"""30 days, as in every figure that we quote."""
YEAR = 12 * MONTH
"""What is paid by the year is paid in twelfths, so a year of the books has 360 days."""
JOULE = _base("J")
WATT = JOULE / SECOND
KILOWATT_HOUR = 1000 * WATT * HOUR
INFERENCE = _base("inference")
MILLION = 1_000_000 * INFERENCE
BYTE = _base("byte")
GIGABYTE = 1_000_000_000 * BYTE
