"""Hedges and retries as the engine carries them out: who is asked when, whose answer counts, what it costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from router.deployment import Shares
from router.errors import BackendFailed, BackendUnavailable, NoBackendAvailable, Outcome, UnprocessableImage
from router.extras import EXTRAS_AT_ONCE
from router.types import Reply
from tests.unit.samples import CLOUD, CLOUD_USD, DEGRADED_EDGE, EDGE, IMAGE, deployment, plan, request, rows
from tests.unit.standins import Lab, answer, fail, hang
from tests.unit.virtual_time import in_virtual_time, virtual_loop

HEDGE_AFTER_S = 0.03
HEDGED = plan(replace(CLOUD, hedge_after=HEDGE_AFTER_S), DEGRADED_EDGE)


@in_virtual_time
async def test_an_answer_in_time_needs_no_hedge() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=HEDGE_AFTER_S * 0.9)
    async with lab.running(deployment(HEDGED)) as engine:
        response = await engine.infer(request())
    assert (response.route.backend, response.route.degraded) == ("cloud", False)
    assert lab.edge.calls == []


@in_virtual_time
async def test_the_first_answer_wins_and_the_loser_is_cancelled_and_paid() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    lab.edge.infer = answer(0.7, after=0.02)
    async with lab.running(deployment(HEDGED)) as engine:
        await asyncio.sleep(0)
        before = len(asyncio.all_tasks())
        asked = request()
        response = await engine.infer(asked)
        assert virtual_loop().time() - asked.arrived == pytest.approx(HEDGE_AFTER_S + 0.02)
        assert lab.edge.called_at[0] - asked.arrived == pytest.approx(HEDGE_AFTER_S)
        assert len(asyncio.all_tasks()) == before
        assert engine.snapshot.targets["m", "cloud"].available
    assert (response.route.backend, response.route.degraded) == ("edge", True)
    assert lab.cloud.cancelled == 1
    cloud, edge = response.route.attempts
    assert (cloud.error, cloud.outcome, cloud.role) == ("hedge-lost", Outcome.IGNORE, "first")
    assert (edge.error, edge.outcome, edge.role) == (None, Outcome.SUCCESS, "hedge")
    assert cloud.cost_usd >= CLOUD_USD


@in_virtual_time
async def test_the_one_that_was_asked_first_may_still_win() -> None:
    lab = Lab()
    lab.cloud.infer = answer(0.7, after=HEDGE_AFTER_S + 0.01)
    lab.edge.infer = answer(after=0.05)
    async with lab.running(deployment(HEDGED)) as engine:
        response = await engine.infer(request())
    assert (response.route.backend, response.route.degraded) == ("cloud", False)
    assert lab.edge.cancelled == 1
    assert [record.error for record in response.route.attempts] == [None, "hedge-lost"]


@pytest.mark.parametrize("failing", ["cloud", "edge"])
@in_virtual_time
async def test_a_failure_of_one_leaves_the_other(failing: str) -> None:
    lab = Lab()
    for name, script in lab.scripts.items():
        script.infer = fail(BackendFailed("broken"), after=0.04) if name == failing else answer(0.7, after=0.06)
    async with lab.running(deployment(HEDGED)) as engine:
        response = await engine.infer(request())
    assert response.route.backend == ("edge" if failing == "cloud" else "cloud")


@in_virtual_time
async def test_when_both_fail_the_error_says_so() -> None:
    lab = Lab()
    lab.cloud.infer = lab.edge.infer = fail(BackendFailed("broken"), after=0.04)
    async with lab.running(deployment(HEDGED)) as engine:
        with pytest.raises(NoBackendAvailable, match="cloud: backend-failed, edge: backend-failed"):
            await engine.infer(request())


@in_virtual_time
async def test_a_hedge_never_goes_where_the_data_may_not() -> None:
    lab = Lab()
    lab.edge.infer = answer(after=0.2)
    local_then_cloud = plan(replace(EDGE, hedge_after=0.01), CLOUD)
    async with lab.running(deployment(local_then_cloud)) as engine:
        response = await engine.infer(request(data_class="phi"))
    assert response.route.backend == "edge"
    assert lab.cloud.calls == []


@in_virtual_time
async def test_hedges_stay_within_their_share() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.1)
    requests = 200
    async with lab.running(replace(deployment(HEDGED), shares=Shares(hedges=0.05))) as engine:
        for _ in range(requests):
            await engine.infer(request())
    assert EXTRAS_AT_ONCE < len(lab.edge.calls) <= 0.05 * requests + EXTRAS_AT_ONCE


@in_virtual_time
async def test_a_share_of_nothing_hedges_nothing() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.1)
    async with lab.running(replace(deployment(HEDGED), shares=Shares(hedges=0.0))) as engine:
        assert (await engine.infer(request())).route.backend == "cloud"
    assert lab.edge.calls == []


@in_virtual_time
async def test_a_client_that_hangs_up_in_the_middle_of_a_race_frees_both() -> None:
    lab = Lab()
    lab.cloud.infer = lab.edge.infer = hang
    async with lab.running(deployment(HEDGED)) as engine:
        await asyncio.sleep(0)
        before = len(asyncio.all_tasks())
        calling = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(HEDGE_AFTER_S + 0.01)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert len(asyncio.all_tasks()) == before
        engine.refresh()
        assert {target.in_flight for target in engine.snapshot.targets.values()} == {0}
    assert (lab.cloud.cancelled, lab.edge.cancelled) == (1, 1)
    assert lab.seen.ends == (0, 0, 1)


@in_virtual_time
async def test_the_callers_own_fault_ends_the_race() -> None:
    lab = Lab()
    lab.staged = UnprocessableImage("no image")
    async with lab.running(deployment(plan(replace(CLOUD, hedge_after=0.0, stages=("decode",)), EDGE))) as engine:
        with pytest.raises(UnprocessableImage):
            await engine.infer(request(IMAGE))


@in_virtual_time
async def test_a_losers_time_is_a_lower_bound_for_the_estimate() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    lab.cloud.probe_reply = Reply({}, 0.0, 0.001, 0.009)
    async with lab.running(deployment(HEDGED)) as engine:
        await engine.infer(request())
        engine.refresh()
        latency = engine.snapshot.targets["m", "cloud"].latency
    assert latency is not None
    assert latency.p95(8) >= HEDGE_AFTER_S
    assert latency.usual(8) == pytest.approx(0.01, abs=1e-3), "but says nothing about what a call that ends takes"


@in_virtual_time
async def test_a_backend_that_could_not_be_reached_is_asked_once_more() -> None:
    lab = Lab()
    lab.cloud.infer = fail(BackendUnavailable("a stale connection"))

    async with lab.running(deployment()) as engine:
        answering = asyncio.create_task(engine.infer(request(rows(0.5))))
        await asyncio.sleep(0.005)
        lab.cloud.infer = answer(0.9)
        response = await answering
    assert (response.route.backend, response.route.degraded) == ("cloud", False)
    assert [record.error for record in response.route.attempts] == ["backend-unavailable", None]
    assert response.route.cost_usd == pytest.approx(response.route.attempts[1].cost_usd), "what was not begun is free"


@pytest.mark.parametrize("error", [BackendFailed("broken"), BackendUnavailable("gone")])
@in_virtual_time
async def test_only_what_no_server_has_begun_is_retried_and_only_once(error: Exception) -> None:
    lab = Lab()
    lab.cloud.infer = fail(error)
    async with lab.running(deployment()) as engine:
        assert (await engine.infer(request())).route.backend == "edge"
    assert len(lab.cloud.calls) == (2 if isinstance(error, BackendUnavailable) else 1)


@in_virtual_time
async def test_nothing_on_the_premises_is_retried() -> None:
    lab = Lab()
    lab.edge.infer = fail(BackendUnavailable("no such file"))
    async with lab.running(deployment(plan(EDGE, CLOUD))) as engine:
        assert (await engine.infer(request())).route.backend == "cloud"
    assert len(lab.edge.calls) == 1


@in_virtual_time
async def test_retries_stay_within_their_share_and_within_the_deadline() -> None:
    lab = Lab()
    lab.cloud.infer = fail(BackendUnavailable("gone"))
    async with lab.running(replace(deployment(), shares=Shares(retries=0.0))) as engine:
        await engine.infer(request())
        assert len(lab.cloud.calls) == 1
    lab = Lab()
    lab.cloud.infer = fail(BackendUnavailable("gone"), after=0.465)
    async with lab.running(deployment()) as engine:
        asked = request(within_s=0.5)
        assert (await engine.infer(asked)).route.backend == "edge"
        assert virtual_loop().time() <= asked.arrived + 0.5
    assert len(lab.cloud.calls) == 1
