"""At which rates edge and cloud change places. Exact: between two steps both costs are straight lines.

Devices come whole, so their cost climbs in steps while the cloud's climbs steadily: the cheaper one can change more
than once. Each change is found, on a line or at a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planning.total_cost import Billing, CostInputs, cloud_cost, edge_cost

MAX_STEPS = 100_000
"""Machines up to which is looked; a fleet of more is a case of its own."""

Side = Literal["edge", "cloud"]


ROUNDING = 1e-9
"""Rates that differ by less than this share are one: a device and a node that are added at once, but for rounding."""


@dataclass(frozen=True, slots=True)
class BreakEven:
    """One change.

    Args:
        rate_per_second: Inferences a second at which it happens.
        cheaper_above: Who is cheaper just above that.
    """

    rate_per_second: float
    cheaper_above: Side


def break_evens(inputs: CostInputs, billing: Billing, up_to_per_second: float) -> tuple[BreakEven, ...]:
    """All changes below a rate, in order; `inputs.rate_per_second` does not matter."""
    ends = _steps(inputs, billing, up_to_per_second)
    starts = np.concatenate(([0.0], ends[:-1]))
    inside = starts + (ends - starts) * np.array([[0.25], [0.75]])  # two points of each straight line
    first, second = _edge_over_cloud(inputs, billing, inside)
    slope = (second - first) / (inside[1] - inside[0])
    at_start = first - slope * (inside[0] - starts)
    at_end = second + slope * (ends - inside[1])
    found: list[BreakEven] = []
    last: Side | None = None
    for start, end, before, after in zip(starts, ends, at_start, at_end, strict=True):
        if before == after == 0:
            continue
        opening = _cheaper(before if before else after)
        if last is not None and opening != last:
            found.append(BreakEven(float(start), opening))
        last = opening
        if before * after < 0:
            last = _cheaper(after)
            found.append(BreakEven(float(start + (end - start) * before / (before - after)), last))
    return tuple(found)


def first_break_even(inputs: CostInputs) -> NDArray[np.float64]:
    """The least rate from which the edge is cheaper than nodes that are billed by use; NaN where it never is.

    In closed form, so that every field may be an array. A device that is fully used and still dearer per inference
    than the cloud stays so however many there are.
    """
    one = replace(inputs, rate_per_second=inputs.device_per_second * inputs.device_utilisation * inputs.sites)
    edge, cloud = edge_cost(one), cloud_cost(one, "by-use")
    share = np.asarray(edge.per_month) / np.maximum(np.asarray(cloud.per_month), np.finfo(float).tiny)
    return np.where(share <= 1, share * one.rate_per_second, np.nan)


def _cheaper(edge_over_cloud: float) -> Side:
    return "cloud" if edge_over_cloud > 0 else "edge"


def _steps(inputs: CostInputs, billing: Billing, up_to: float) -> NDArray[np.float64]:
    """The rates at which a device, or an always-on node, is added, and where to stop looking."""
    widths = [float(inputs.device_per_second * inputs.device_utilisation)]
    if billing == "always-on":
        widths.append(float(inputs.node_per_second * inputs.node_utilisation))
    end = min(up_to, MAX_STEPS * min(widths))
    steps = [np.arange(1, end / width) * width for width in widths]
    rates = np.unique(np.minimum(np.concatenate([*steps, [end]]), end))
    apart: NDArray[np.float64] = rates[np.append(np.diff(rates) > ROUNDING * rates[1:], True)]
    return apart


def _edge_over_cloud(inputs: CostInputs, billing: Billing, rates: NDArray[np.float64]) -> NDArray[np.float64]:
    at = replace(inputs, rate_per_second=rates)
    difference: NDArray[np.float64] = np.subtract(edge_cost(at).per_month, cloud_cost(at, billing).per_month)
    return difference
