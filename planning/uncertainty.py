"""What uncertain figures do to the result: one input at a time, and all of them at once. Pure; seeds are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from planning.break_even import first_break_even
from planning.prices import Figure
from planning.total_cost import Billing, CostInputs, cloud_cost, edge_cost

QUANTILES = (0.05, 0.5, 0.95)
SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Swing:
    """What one input does to the result, all others as they are likely: a row of a tornado chart.

    Args:
        field: Which input.
        low: Its least value.
        high: Its greatest value.
        edge_per_million: Money at the low value and at the high one.
        cloud_per_million: The same for the cloud.
        break_even_per_second: The same for the least rate from which the edge is cheaper, by use; None: it never is.
        difference: Edge over cloud in money a month, at the low value and at the high one.
    """

    field: str
    low: float
    high: float
    edge_per_million: tuple[float, float]
    cloud_per_million: tuple[float, float]
    break_even_per_second: tuple[float | None, float | None]
    difference: tuple[float, float]

    @property
    def width(self) -> float:
        """How far the difference of edge and cloud moves, money a month."""
        return abs(self.difference[1] - self.difference[0])

    @property
    def decides(self) -> bool:
        """Whether it alone changes who is cheaper."""
        return self.difference[0] * self.difference[1] < 0


@dataclass(frozen=True, slots=True)
class Spread:
    """What all uncertain inputs together do to the result.

    Args:
        seed: Of the random numbers.
        samples: How many draws.
        edge_per_million: Money at each quantile.
        cloud_per_million: The same for the cloud.
        break_even_per_second: The same for the least rate from which the edge is cheaper, by use, among the draws that
            have one; None if none has.
        never_breaks_even: Share of draws in which the edge is never cheaper, by use.
        edge_is_cheaper: Share of draws in which the edge is cheaper at the rate asked.
    """

    seed: int
    samples: int
    edge_per_million: Mapping[float, float]
    cloud_per_million: Mapping[float, float]
    break_even_per_second: Mapping[float, float] | None
    never_breaks_even: float
    edge_is_cheaper: float


def likely(figures: Mapping[str, Figure]) -> CostInputs:
    """The inputs, all as they are likely."""
    return CostInputs(**{name: figure.likely for name, figure in figures.items()})


def tornado(figures: Mapping[str, Figure], billing: Billing) -> tuple[Swing, ...]:
    """One-way sensitivity to every input, the widest swing first."""
    middle = likely(figures)
    swings = [_swing(name, figures[name], middle, billing) for name in (field.name for field in fields(CostInputs))]
    return tuple(sorted(swings, key=lambda swing: swing.width, reverse=True))


def _swing(name: str, figure: Figure, middle: CostInputs, billing: Billing) -> Swing:
    both = replace(middle, **{name: np.array([figure.low, figure.high])})
    edge, cloud = edge_cost(both), cloud_cost(both, billing)
    return Swing(
        name,
        figure.low,
        figure.high,
        _pair(edge.per_million),
        _pair(cloud.per_million),
        tuple(None if np.isnan(rate) else float(rate) for rate in np.broadcast_to(first_break_even(both), 2)),  # type: ignore[arg-type]
        _pair(np.asarray(edge.per_month) - np.asarray(cloud.per_month)),
    )


def _pair(amounts: float | NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.broadcast_to(amounts, 2)
    return float(low), float(high)


def monte_carlo(figures: Mapping[str, Figure], billing: Billing, seed: int, samples: int = SAMPLES) -> Spread:
    """Draws every input from a triangular distribution over its range; the same seed gives the same result."""
    random = np.random.default_rng(seed)
    drawn = CostInputs(**{name: _draws(random, figure, samples) for name, figure in figures.items()})
    edge, cloud = edge_cost(drawn), cloud_cost(drawn, billing)
    rates = np.broadcast_to(first_break_even(drawn), samples)
    reached = rates[~np.isnan(rates)]
    return Spread(
        seed=seed,
        samples=samples,
        edge_per_million=_quantiles(edge.per_million),
        cloud_per_million=_quantiles(cloud.per_million),
        break_even_per_second=_quantiles(reached) if reached.size else None,
        never_breaks_even=1 - reached.size / samples,
        edge_is_cheaper=float(np.mean(np.asarray(edge.per_month) < np.asarray(cloud.per_month))),
    )


def _draws(random: np.random.Generator, figure: Figure, samples: int) -> NDArray[np.float64]:
    # Drawn even where nothing is uncertain, so that narrowing one range does not shift the draws of the others.
    position = random.random(samples)
    if figure.low == figure.high:
        return np.full(samples, figure.likely)
    width, left = figure.high - figure.low, figure.likely - figure.low
    rising = figure.low + np.sqrt(position * width * left)
    falling = figure.high - np.sqrt((1 - position) * width * (figure.high - figure.likely))
    return np.where(position * width < left, rising, falling)


def _quantiles(amounts: float | NDArray[np.float64]) -> dict[float, float]:
    return {share: float(np.quantile(amounts, share)) for share in QUANTILES}
