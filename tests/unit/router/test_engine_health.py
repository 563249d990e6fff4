"""What attempts and probes teach the engine about a backend, and what they must not."""

from __future__ import annotations

import asyncio

import pytest

from router.breaker import CHECK_INTERVAL_S, LONGEST_WAIT_S, BreakerState
from router.engine import Engine
from router.errors import BackendFailed, BackendRejectedInput, BackendUnavailable, DeadlineExceeded, NoBackendAvailable
from router.instance import PROBE_TIMEOUT_S
from router.types import Reply
from tests.unit.samples import CLOUD, DEGRADED_EDGE, deployment, plan, request
from tests.unit.standins import (
    Lab,
    answer,
    fail,
    failing_probe,
    hang,
    ready,
    silent,
    slow_probe,
)
from tests.unit.virtual_time import in_virtual_time, virtual_loop

CLOUD_ONLY = plan(CLOUD)


def cloud_state(engine: Engine) -> BreakerState:
    return engine.snapshot.targets["m", "cloud"].breaker


def in_flight(engine: Engine) -> int:
    engine.refresh()
    return engine.snapshot.targets["m", "cloud"].in_flight


@in_virtual_time
async def test_three_drops_open_it_and_then_no_call_is_made() -> None:
    lab = Lab()
    lab.cloud.infer = fail(BackendFailed("broken"), after=0.05)
    lab.cloud.probe = failing_probe(BackendFailed("broken"))
    async with lab.engine.running():
        lab.cloud.probe = ready
        await lab.engine.adopt(deployment(), must_open=False)
        lab.cloud.probe = failing_probe(BackendFailed("broken"))
        for number in range(1, 10):
            response = await lab.engine.infer(request())
            assert response.route.backend == "edge"
            assert len(lab.cloud.calls) == min(number, 3)
        assert cloud_state(lab.engine) is BreakerState.OPEN


@in_virtual_time
async def test_an_open_breaker_is_seen_by_the_very_next_request() -> None:
    lab = Lab()
    lab.cloud.infer = fail(BackendUnavailable("unplugged"), after=0.05)
    async with lab.running(deployment(CLOUD_ONLY)) as engine:
        for _ in range(3):
            with pytest.raises(NoBackendAvailable):
                await engine.infer(request())
        view = engine.snapshot.targets["m", "cloud"]
        assert (view.available, view.problem) == (False, "unplugged")


@pytest.mark.parametrize("lateness", [0.0, 0.0005])
@in_virtual_time
async def test_a_backend_that_hangs_is_opened_too(lateness: float) -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        virtual_loop().lateness = lateness
        for number in range(1, 4):
            assert (await engine.infer(request(within_s=0.5))).route.backend == "edge"
            assert (cloud_state(engine) is BreakerState.OPEN) == (number == 3)


@in_virtual_time
async def test_a_backend_that_hangs_is_opened_by_callers_of_less_and_less_patience() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = slow_probe(PROBE_TIMEOUT_S * 0.9)
        for within_s in (0.5, 0.48, 0.46):
            assert cloud_state(engine) is BreakerState.CLOSED
            assert (await engine.infer(request(within_s=within_s))).route.backend == "edge"
        assert cloud_state(engine) is not BreakerState.CLOSED


@in_virtual_time
async def test_a_callers_own_short_deadline_says_nothing_about_the_backend() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.1)
    lab.cloud.probe_reply = Reply({}, 0.0, 0.01, 0.09)
    async with lab.running(deployment(CLOUD_ONLY)) as engine:
        before = engine.snapshot.targets["m", "cloud"].latency
        for _ in range(10):
            with pytest.raises(DeadlineExceeded):
                await engine.infer(request(within_s=0.02))
        assert cloud_state(engine) is BreakerState.CLOSED
        engine.refresh()
        assert engine.snapshot.targets["m", "cloud"].latency == before
        assert (await engine.infer(request(within_s=0.5))).route.backend == "cloud"


@in_virtual_time
async def test_input_that_the_backend_rejects_says_nothing_about_the_backend() -> None:
    lab = Lab()
    lab.cloud.infer = fail(BackendRejectedInput("wrong"))
    async with lab.running(deployment(CLOUD_ONLY)) as engine:
        for _ in range(10):
            with pytest.raises(BackendRejectedInput):
                await engine.infer(request())
        assert cloud_state(engine) is BreakerState.CLOSED


@in_virtual_time
async def test_a_caller_that_hangs_up_leaves_nothing_behind_and_moves_no_breaker() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        await asyncio.sleep(0)
        before = len(asyncio.all_tasks())
        for number in range(1, 11):
            calling = asyncio.create_task(engine.infer(request(within_s=0.5)))
            await asyncio.sleep(0.05)
            assert in_flight(engine) == 1
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            assert in_flight(engine) == 0
            assert lab.cloud.cancelled == number
        assert cloud_state(engine) is BreakerState.CLOSED
        assert len(asyncio.all_tasks()) == before
    assert lab.seen.ends == (0, 0, 10)
    assert lab.edge.calls == []
    assert lab.seen.hang_ups[0][2][0].error == "cancelled"


@in_virtual_time
async def test_one_caller_that_hangs_up_does_not_disturb_the_others() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.1)
    async with lab.running(deployment()) as engine:
        calling = [asyncio.create_task(engine.infer(request())) for _ in range(5)]
        await asyncio.sleep(0.05)
        calling[2].cancel()
        ended = await asyncio.gather(*calling, return_exceptions=True)
        assert in_flight(engine) == 0
    assert [isinstance(end, asyncio.CancelledError) for end in ended] == [False, False, True, False, False]


@in_virtual_time
async def test_it_recovers_by_a_synthetic_probe_alone() -> None:
    lab = Lab()
    lab.cloud.infer = fail(BackendFailed("broken"), after=0.05)
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = failing_probe(BackendUnavailable("still broken"))
        for _ in range(3):
            await engine.infer(request())
        lab.cloud.infer = answer()
        lab.cloud.probes.clear()
        for _ in range(20):
            await asyncio.sleep(0.1)
            assert (await engine.infer(request())).route.backend == "edge"
        assert lab.cloud.probes != []
        assert len(lab.cloud.calls) == 3
        lab.cloud.probe = ready
        await asyncio.sleep(LONGEST_WAIT_S)
        assert True in lab.cloud.probes
        assert (await engine.infer(request())).route.backend == "cloud"


@in_virtual_time
async def test_a_readiness_probe_that_overlaps_the_failures_does_not_close_it() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = slow_probe(PROBE_TIMEOUT_S * 0.9)
        await asyncio.sleep(CHECK_INTERVAL_S + 0.01)
        assert lab.cloud.probes == [False]
        lab.cloud.infer = fail(BackendFailed("wrong answers"), after=0.05)
        for _ in range(3):
            await engine.infer(request())
        assert cloud_state(engine) is BreakerState.OPEN
        lab.cloud.probe = failing_probe(BackendFailed("wrong answers"))
        await asyncio.sleep(PROBE_TIMEOUT_S * 0.95)
        assert engine._planner.world.generation.targets["m", "cloud"].instance.breaker.state is not BreakerState.CLOSED


@in_virtual_time
async def test_a_recovery_is_seen_at_once_however_long_the_probe_took() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = silent
        await asyncio.sleep(10)
        lab.cloud.probes.clear()
        lab.cloud.probe = slow_probe(0.45)
        while len(lab.cloud.probes) == 0:  # noqa: ASYNC110 the clock stands still between timers
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * 0.45 + 0.01)
        assert engine.snapshot.targets["m", "cloud"].available


@in_virtual_time
async def test_a_failure_is_seen_at_once_however_long_the_probe_took() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = silent
        await asyncio.sleep(CHECK_INTERVAL_S + 2 * (PROBE_TIMEOUT_S + CHECK_INTERVAL_S) + PROBE_TIMEOUT_S + 0.01)
        assert len(lab.cloud.probes) == 3
        assert not engine.snapshot.targets["m", "cloud"].available


@in_virtual_time
async def test_it_is_back_within_three_seconds_of_its_return_however_long_it_was_away() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        for away in (1.0, 7.3, 60.0, 3600.0):
            lab.cloud.probe = silent
            await asyncio.sleep(away + 3)
            assert cloud_state(engine) is not BreakerState.CLOSED
            lab.cloud.probe = ready
            await asyncio.sleep(3.0)
            assert cloud_state(engine) is BreakerState.CLOSED


@in_virtual_time
async def test_silence_is_noticed_without_any_request() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = silent
        await asyncio.sleep(3.5)
        assert cloud_state(engine) is not BreakerState.CLOSED
        assert "did not answer a probe" in engine.snapshot.targets["m", "cloud"].problem
        assert (await engine.infer(request())).route.backend == "edge"
    assert lab.cloud.calls == []


@in_virtual_time
async def test_a_probe_that_breaks_its_contract_fails_and_others_go_on() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = failing_probe(ZeroDivisionError("a vendor's library"))
        await asyncio.sleep(3)
        assert cloud_state(engine) is not BreakerState.CLOSED
        assert engine.snapshot.targets["m", "edge"].available
        lab.cloud.probe = ready
        await asyncio.sleep(3)
        assert cloud_state(engine) is BreakerState.CLOSED


@in_virtual_time
async def test_the_first_probe_is_the_first_estimate_and_calls_refine_it() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.2)
    async with lab.running(deployment(plan(CLOUD, DEGRADED_EDGE))) as engine:
        first = engine.snapshot.targets["m", "cloud"].latency
        assert first is not None
        assert first.p99(0) == pytest.approx(0.01)
        await engine.infer(request())
        await asyncio.sleep(0.3)
        latest = engine.snapshot.targets["m", "cloud"].latency
        assert latest is not None
        assert latest.samples >= 2
        assert latest.p99(8) >= 0.19
