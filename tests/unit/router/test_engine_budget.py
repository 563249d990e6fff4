"""Budgets as the engine keeps them: what is charged, what happens when they are spent, what outlives a restart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from router.budget import Budget
from router.deployment import Deployment
from router.errors import BackendFailed, BackendUnavailable, NoBackendAvailable, Overloaded
from tests.unit.samples import CLOUD, deployment, plan, request
from tests.unit.standins import Lab, fail
from tests.unit.virtual_time import in_virtual_time

CALL_USD = 0.01 + 8 * 1e-6
"""What one row costs in the cloud of these tests, egress included."""


def with_budget(budget: Budget, base: Callable[[], Deployment] = deployment) -> Deployment:
    return replace(base(), budgets={"cloud": budget})


@in_virtual_time
async def test_a_spent_budget_keeps_requests_at_home_until_the_next_month() -> None:
    lab = Lab()
    async with lab.running(with_budget(Budget(usd_per_month=2.5 * CALL_USD))) as engine:
        backends = [(await engine.infer(request())).route.backend for _ in range(5)]
        assert backends == ["cloud"] * 3 + ["edge"] * 2, "the call that crosses the line is the last"
        view = engine.snapshot.targets["m", "cloud"]
        engine.refresh()
        response = await engine.infer(request())
        assert response.route.degraded
        lab.today = date(2026, 12, 1)
        assert (await engine.infer(request())).route.backend == "cloud"
        assert view.left_usd is not None


@in_virtual_time
async def test_the_reason_and_the_refusal_name_the_budget() -> None:
    lab = Lab()
    async with lab.running(with_budget(Budget(usd_per_day=CALL_USD / 2), lambda: deployment(plan(CLOUD)))) as engine:
        await engine.infer(request())
        with pytest.raises(NoBackendAvailable, match="budget") as refused:
            await engine.infer(request())
        assert refused.value.retry_after_s
        engine.refresh()
        view = engine.snapshot.targets["m", "cloud"]
        assert (view.available, view.spent, view.left_usd) == (False, True, 0.0)
        assert "its budget of $0.005004 a day is spent" in view.problem


@in_virtual_time
async def test_a_warning_only_warns() -> None:
    lab = Lab()
    async with lab.running(with_budget(Budget(usd_per_day=CALL_USD / 2, when_spent="warn"))) as engine:
        assert [(await engine.infer(request())).route.backend for _ in range(3)] == ["cloud"] * 3
        engine.refresh()
        assert engine.snapshot.targets["m", "cloud"].left_usd == 0.0


@in_virtual_time
async def test_what_was_spent_outlives_the_policy_file_and_the_process(tmp_path: Path) -> None:
    budget = Budget(usd_per_month=100.0)
    lab = Lab(tmp_path)
    async with lab.running(with_budget(budget)) as engine:
        await engine.infer(request())
        await engine.adopt(deployment(), must_open=False)
        await engine.infer(request())
        await engine.adopt(with_budget(replace(budget, usd_per_day=50.0)), must_open=False)
        assert engine.purses["cloud"].spent_month_usd == pytest.approx(CALL_USD), "without a budget nothing is counted"
    lab = Lab(tmp_path)
    async with lab.running(with_budget(budget)) as engine:
        assert engine.purses["cloud"].spent_month_usd == pytest.approx(CALL_USD)
        await engine.infer(request())
        assert engine.purses["cloud"].spent_month_usd == pytest.approx(2 * CALL_USD)


@pytest.mark.parametrize(
    ("error", "usd"),
    [(BackendFailed("broken"), CALL_USD), (BackendUnavailable("unplugged"), 0.0), (Overloaded("busy"), 0.0)],
)
@in_virtual_time
async def test_what_a_server_began_is_paid_and_what_it_never_got_is_not(error: Exception, usd: float) -> None:
    lab = Lab()
    lab.cloud.infer = fail(error)
    async with lab.running(with_budget(Budget(usd_per_month=100.0))) as engine:
        response = await engine.infer(request())
        assert engine.purses["cloud"].spent_day_usd == pytest.approx(usd)
        assert response.route.attempts[0].cost_usd == pytest.approx(usd)
