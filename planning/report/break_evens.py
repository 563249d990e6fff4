"""Where the recommended choice changes places with another, as the cost curves tell. Pure.

Between edge and cloud it is exact, from `planning.break_even`; where a split takes part it is read from the curve,
whose points are a sixth apart, and says so by "about".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planning.advice import Advice
from planning.ownership import Curves
from planning.rubric import CHOICES, Choice
from planning.wording import shown

SHOWN = 1
"""Of each pair; the nearest to the rate that is asked."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """One change.

    Args:
        rate_per_second: Inferences a second at which it happens.
        per_million: Money for a million inferences there.
        above: The choice that is cheaper above that rate.
        below: The one that is cheaper below.
        exact: Whether it was computed, rather than read from the curve.
    """

    rate_per_second: float
    per_million: float
    above: Choice
    below: Choice
    exact: bool

    @property
    def text(self) -> str:
        """In words."""
        rate = shown(self.rate_per_second) if self.exact else f"about {shown(float(f'{self.rate_per_second:.2g}'))}"
        return f"from {rate}/s {self.above} is cheaper than {self.below}"


def crossings(advice: Advice) -> tuple[Crossing, ...]:
    """The nearest change between the recommended choice and each other, in the order of the rate."""
    mine = advice.judgement.recommendation or "edge"
    found = []
    for other in CHOICES:
        if other != mine:
            pair = list(_exact(advice) if {mine, other} == {"edge", "cloud"} else _read(advice.curves, mine, other))
            pair.sort(key=lambda change: abs(math.log(change.rate_per_second / advice.workload.rate_per_second)))
            found += pair[:SHOWN]
    return tuple(sorted(found, key=lambda change: change.rate_per_second))


def _exact(advice: Advice) -> Iterator[Crossing]:
    curves = advice.curves
    for change in advice.cost.break_evens[advice.workload.node]:
        if curves.rates_per_second[0] <= change.rate_per_second <= curves.rates_per_second[-1]:
            above = change.cheaper_above
            below: Choice = "cloud" if above == "edge" else "edge"
            per_million = _at(curves, "cloud", change.rate_per_second)
            yield Crossing(change.rate_per_second, per_million, above, below, exact=True)


def _read(curves: Curves, one: Choice, other: Choice) -> Iterator[Crossing]:
    if min(*curves.per_million[one], *curves.per_million[other]) <= 0:
        return  # what costs nothing crosses nothing
    difference = np.log(curves.per_million[one]) - np.log(curves.per_million[other])
    rates = np.log(curves.rates_per_second)
    for place in np.flatnonzero(difference[:-1] * difference[1:] < 0):
        before, after = difference[place], difference[place + 1]
        rate = float(np.exp(rates[place] + (rates[place + 1] - rates[place]) * before / (before - after)))
        above, below = (one, other) if after < 0 else (other, one)
        yield Crossing(rate, _at(curves, one, rate), above, below, exact=False)


def _at(curves: Curves, choice: Choice, rate: float) -> float:
    return float(np.interp(math.log(rate), np.log(curves.rates_per_second), curves.per_million[choice]))
