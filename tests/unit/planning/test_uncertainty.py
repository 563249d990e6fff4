"""Sensitivity and Monte Carlo: repeatable, within their ranges, and centred where the figures are."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from planning.ownership import Demand, cost_figures, tco
from planning.price_file import default_prices
from planning.prices import Figure
from planning.total_cost import CostInputs, cloud_cost, edge_cost
from planning.uncertainty import QUANTILES, likely, monte_carlo, tornado

FIGURES = cost_figures(default_prices(), Demand(bytes_out=50_000), "reference")
CERTAIN = {name: Figure(figure.likely, figure.likely, figure.likely) for name, figure in FIGURES.items()}


def test_every_input_has_its_row_and_the_widest_stands_first() -> None:
    swings = tornado(FIGURES, "by-use")
    assert {swing.field for swing in swings} == {field.name for field in fields(CostInputs)}
    widths = [swing.width for swing in swings]
    assert widths == sorted(widths, reverse=True)


def test_a_swing_is_what_comes_of_its_two_ends() -> None:
    (rent,) = (swing for swing in tornado(FIGURES, "by-use") if swing.field == "per_hour")
    ends = [likely({**FIGURES, "per_hour": Figure(end, end, end)}) for end in (1.5, 4.0)]
    assert rent.cloud_per_million == pytest.approx([float(cloud_cost(end, "by-use").per_million) for end in ends])
    assert rent.edge_per_million == pytest.approx([float(edge_cost(end).per_million) for end in ends])
    assert rent.break_even_per_second[0] is not None
    assert rent.break_even_per_second[1] is not None
    assert rent.break_even_per_second[0] > rent.break_even_per_second[1]


def test_what_is_certain_does_not_spread() -> None:
    spread = monte_carlo(CERTAIN, "by-use", seed=1, samples=100)
    sure = float(edge_cost(likely(CERTAIN)).per_million)
    assert list(spread.edge_per_million.values()) == pytest.approx([sure] * len(QUANTILES))
    assert all(swing.width == 0 for swing in tornado(CERTAIN, "by-use"))


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    one, again, other = (monte_carlo(FIGURES, "by-use", seed, 1000) for seed in (7, 7, 8))
    assert one == again
    assert one.edge_per_million != other.edge_per_million


def test_quantiles_are_in_order_and_hold_the_middle() -> None:
    spread = monte_carlo(FIGURES, "by-use", 0)
    for quantiles in (spread.edge_per_million, spread.cloud_per_million, spread.break_even_per_second):
        assert quantiles is not None
        assert list(quantiles) == list(QUANTILES)
        assert list(quantiles.values()) == sorted(quantiles.values())
    assert 0 <= spread.edge_is_cheaper <= 1


def test_draws_are_triangular() -> None:
    """The mean of a triangular distribution is that of its three corners."""
    wide = {**CERTAIN, "per_hour": Figure(2.0, 1.0, 6.0), "bytes_out": Figure(0, 0, 0)}
    spread = monte_carlo(wide, "by-use", 3, 200_000)
    per_million = 1e6 / 200 / 3600
    median = 6.0 - np.sqrt(0.5 * 5.0 * 4.0)
    assert spread.cloud_per_million[0.5] == pytest.approx(median * per_million, rel=0.01)


def test_cheap_nodes_never_break_even() -> None:
    spread = monte_carlo(
        {**CERTAIN, "per_hour": Figure(0.01, 0.01, 0.01), "bytes_out": Figure(0, 0, 0)}, "by-use", 0, 10
    )
    assert spread.break_even_per_second is None
    assert spread.never_breaks_even == 1


def test_the_result_is_plain_values() -> None:
    import orjson

    plain = orjson.loads(orjson.dumps(tco(seed=3).as_json()))
    assert plain["spread"]["seed"] == 3
    assert len(plain["curves"]["rates_per_second"]) == len(plain["curves"]["per_million"]["device"])
    assert set(plain["break_evens"]) == {"spot", "reference", "on-demand", "nvlink"}
    assert [option["machine"] for option in plain["options"]] == ["device", "spot", "reference", "on-demand", "nvlink"]
    assert plain["tornado"][0]["field"] in {field.name for field in fields(CostInputs)}
