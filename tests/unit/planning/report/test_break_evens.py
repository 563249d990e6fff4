"""Where choices change places: exact between edge and cloud, close between others, and drawn even where all is free."""

from __future__ import annotations

from dataclasses import replace

import pytest

import planning
from planning.judgement import choice_costs
from planning.price_file import default_prices
from planning.prices import Figure
from planning.report.break_evens import crossings
from planning.report.content import make_report
from planning.report.page import html
from tests.unit.planning.report.decisions import worked
from tests.unit.planning.report.pages import Page
from tests.unit.planning.test_advice import EXPECTED
from tests.unit.planning.workloads import example

NOTHING = Figure(0, 0, 0)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_crossing_is_where_the_costs_are_equal(name: str) -> None:
    advice, _ = worked(name)
    for crossing in crossings(advice):
        at = replace(advice.workload, rate_per_second=crossing.rate_per_second)
        costs = choice_costs(at, default_prices())
        assert costs[crossing.above] == pytest.approx(costs[crossing.below], rel=0.05)
        more = choice_costs(replace(at, rate_per_second=crossing.rate_per_second * 1.2), default_prices())
        assert more[crossing.above] < more[crossing.below]


def test_between_edge_and_cloud_it_is_that_of_the_total_cost() -> None:
    advice, _ = worked("kiosk")
    (crossing,) = (found for found in crossings(advice) if {found.above, found.below} == {"edge", "cloud"})
    assert crossing.exact
    assert crossing.rate_per_second in [found.rate_per_second for found in advice.cost.break_evens["reference"]]
    assert crossing.text == "from 10.61/s edge is cheaper than cloud"


@pytest.mark.parametrize("all_free", [False, True])
def test_what_costs_nothing_can_be_drawn(all_free: bool) -> None:
    prices = default_prices()
    device = replace(prices.device, hardware=NOTHING, operations_per_year=NOTHING, watts=NOTHING)
    prices = replace(prices, device=device)
    if all_free:
        nodes = {name: replace(node, per_hour=NOTHING) for name, node in prices.nodes.items()}
        prices = replace(prices, nodes=nodes, per_gb=NOTHING)
    page = Page(html(make_report(planning.advise(example("kiosk"), prices), "", "none")))
    assert page.tables["costs"][0].rows[0] == ["edge", "0.000", "0.00"]
