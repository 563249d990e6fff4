"""Weighs one workload: costs, constraints, scores, and who wins by how much. Pure, and quick enough to be searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from planning.constraints import Constraint, broken_constraints
from planning.ownership import Curves, Demand, cost_figures
from planning.prices import Prices
from planning.ranges import RANGES, Nonsense
from planning.rubric import CHOICES, Choice, Row, rubric
from planning.total_cost import cloud_cost, edge_cost
from planning.uncertainty import likely
from planning.units import INFERENCE, MILLION, MONTH, SECOND
from planning.workload import Workload

FARTHEST_RATE = 100
CURVE_POINTS = 61

DecidedBy = Literal["constraints", "scores", "cost", "contradiction"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of it.

    Args:
        rows: The seven criteria.
        totals: Points of each choice, those that are ruled out included.
        constraints: What rules choices out.
        recommendation: The choice; None where all are ruled out.
        runner_up: The next of those that are left; None where there is none.
        margin: Points between the two; None where there is no runner-up.
        decided_by: The constraints if one choice is left, the scores, the cost if those are equal, or a contradiction
            if nothing is left.
        misses: Criteria in which the recommendation has no point: it wins by the sum of them, which may hide one.
        per_million: What a million inferences cost with each choice, in the prices' currency.
        per_month: What a month costs with each choice.
    """

    rows: tuple[Row, ...]
    totals: Mapping[Choice, int]
    constraints: tuple[Constraint, ...]
    recommendation: Choice | None
    runner_up: Choice | None
    margin: int | None
    decided_by: DecidedBy
    misses: tuple[str, ...]
    per_million: Mapping[Choice, float]
    per_month: Mapping[Choice, float]


def judge(workload: Workload, prices: Prices) -> Judgement:
    """Weighs a workload.

    Raises:
        Nonsense: It names a node that the price file does not have.
    """
    per_month = choice_costs(workload, prices)
    million = _per_million(workload)
    per_million = {choice: cost * million for choice, cost in per_month.items()}
    constraints = broken_constraints(workload)
    out = {constraint.excludes for constraint in constraints}
    left = [choice for choice in CHOICES if choice not in out]
    rows = rubric(workload, per_million, left)
    totals: dict[Choice, int] = {choice: sum(row.scores[choice].points for row in rows) for choice in CHOICES}
    left.sort(key=lambda choice: (-totals[choice], per_month[choice]))
    first, second = (*left, None, None)[:2]
    margin = None if first is None or second is None else totals[first] - totals[second]
    misses = tuple(row.criterion for row in rows if first is not None and row.scores[first].points == 0)
    decided_by = _decided_by(len(left), margin)
    return Judgement(rows, totals, constraints, first, second, margin, decided_by, misses, per_million, per_month)


def demand_of(workload: Workload) -> Demand:
    """What the workload asks, if all of it is sent to the cloud."""
    return Demand(
        rate_per_second=workload.rate_per_second,
        device_utilisation=workload.device_utilisation,
        node_utilisation=workload.node_utilisation,
        sites=workload.sites,
        bytes_out=workload.payload_bytes,
        billing=workload.billing,
        against=workload.node,
        device_per_second=workload.device_per_second,
        node_per_second=workload.node_per_second,
    )


def choice_costs(workload: Workload, prices: Prices) -> dict[Choice, float]:
    """Money a month for each choice. A split pays for its devices, and for the cloud's share of the work.

    Raises:
        Nonsense: It names a node that the price file does not have.
    """
    if workload.node not in prices.nodes:
        raise Nonsense("node", f"there is no node {workload.node!r}; there are {', '.join(prices.nodes)}")
    inputs = likely(cost_figures(prices, demand_of(workload), workload.node))
    forwarded = replace(
        inputs,
        rate_per_second=workload.rate_per_second * workload.forwarded_share,
        bytes_out=workload.forwarded_bytes,
    )
    device_part = replace(inputs, device_per_second=workload.device_part_per_second)
    here, there = edge_cost(device_part), cloud_cost(forwarded, workload.billing)
    return {
        "edge": float(edge_cost(inputs).per_month),
        "split": float(here.per_month) + float(there.per_month),
        "cloud": float(cloud_cost(inputs, workload.billing).per_month),
    }


def choice_curves(workload: Workload, prices: Prices) -> Curves:
    """What a million inferences cost with each choice, from a hundredth of the workload's rate to a hundredfold.

    Raises:
        Nonsense: It names a node that the price file does not have.
    """
    rate, highest = workload.rate_per_second, RANGES["rate_per_second"].high
    rates = tuple(map(float, np.geomspace(rate / FARTHEST_RATE, min(rate * FARTHEST_RATE, highest), CURVE_POINTS)))
    points = [replace(workload, rate_per_second=rate) for rate in rates]
    costs = [(choice_costs(point, prices), _per_million(point)) for point in points]
    return Curves(
        rates, {choice: tuple(per_month[choice] * million for per_month, million in costs) for choice in CHOICES}
    )


def _per_million(workload: Workload) -> float:
    """Months that a million inferences take."""
    return float((MILLION / (workload.rate_per_second * INFERENCE / SECOND)).to(MONTH))


def _decided_by(left: int, margin: int | None) -> DecidedBy:
    if left == 0:
        return "contradiction"
    if left == 1:
        return "constraints"
    return "scores" if margin else "cost"
