"""Reports of the worked cases, and of a workload whose every word is hostile."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import planning
from planning.policy_draft import draft_policy
from planning.price_file import default_prices
from planning.report.blocks import Report
from planning.report.content import make_report
from planning.report.latencies import Run
from planning.report.page import html
from planning.workload import Provenance
from tests.unit.planning.report.pages import Page
from tests.unit.planning.workloads import example

HOSTILE = "</title></code><script>alert('1')</script><img src=x onerror=\"y\"> & ]]> $\\frac$ 漢\x07\u202e " + "w" * 200

RUNS = (
    Run("a.json", "bursty", "", "local", 100, tuple(20.0 + step / 10 for step in range(100)), "a Pi"),
    Run("a.json", "bursty", "50 ms round trip", "cloud", 100, tuple(60.0 + step for step in range(90)), "a Pi"),
    Run("a.json", "bursty", "100 ms round trip", "cloud", 10, (), "a Pi"),
)


@cache
def worked(name: str, runs: tuple[Run, ...] = RUNS) -> tuple[planning.Advice, Report]:
    """The advice and the report of a worked case."""
    advice = planning.advise(example(name))
    return advice, make_report(advice, draft_policy(advice, default_prices()), runs=runs)


@cache
def opened(name: str) -> tuple[str, Page]:
    """The page of a worked case, as it is and as it is read."""
    text = html(worked(name)[1])
    return text, Page(text)


@cache
def hostile() -> Report:
    """A report in which everything that a user may write is hostile."""
    workload = replace(
        example("cameras"),
        name=HOSTILE,
        device_part=HOSTILE,
        node=HOSTILE,
        provenance={"size_mb": Provenance("measured", HOSTILE)},
    )
    prices = default_prices()
    device = replace(prices.device, name=HOSTILE, source=HOSTILE)
    node = replace(prices.nodes["spot"], source=HOSTILE)
    prices = replace(prices, currency=HOSTILE[:60], device=device, nodes={HOSTILE: node})
    run = replace(RUNS[0], source=HOSTILE, scenario=HOSTILE, line=HOSTILE, subject=HOSTILE, machine=HOSTILE)
    advice = planning.advise(workload, prices)
    return make_report(advice, draft_policy(advice, prices), runs=(run,))
