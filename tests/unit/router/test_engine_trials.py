"""Predictions that turned out wrong are found to be wrong: no estimate keeps a backend out for long."""

from __future__ import annotations

import asyncio

import pytest

from router.engine import Engine
from router.errors import BackendFailed, Outcome
from router.instance import FIRST_SAMPLES, TRIAL_INTERVAL_S
from router.types import Reply
from tests.unit.samples import CLOUD, DEGRADED_EDGE, EDGE, deployment, plan, request
from tests.unit.standins import Lab, answer, fail, hang, ready
from tests.unit.virtual_time import in_virtual_time, virtual_loop

SLOW = Reply({}, 0.0, 0.3, 0.1)
QUICK = Reply({}, 0.0, 0.0, 0.01)


async def backends(engine: Engine, seconds: float, per_second: int = 20) -> list[str]:
    """Who answers over so many seconds; requests have 250 ms."""
    answered = []
    for _ in range(round(seconds * per_second)):
        answered.append((await engine.infer(request(within_s=0.25))).route.backend)
        await asyncio.sleep(1 / per_second)
    return answered


@in_virtual_time
async def test_a_slow_first_probe_does_not_keep_the_cloud_out_for_long() -> None:
    lab = Lab()
    lab.cloud.probe_reply = SLOW
    async with lab.running(deployment()) as engine:
        lab.cloud.probe_reply = QUICK
        await asyncio.sleep(FIRST_SAMPLES * 0.25)
        assert (await engine.infer(request(within_s=0.25))).route.backend == "cloud"


@in_virtual_time
async def test_a_cloud_thought_too_slow_is_tried_now_and_then_and_is_back_with_the_first_answer_in_time() -> None:
    lab = Lab()
    lab.cloud.probe_reply = SLOW
    lab.cloud.infer = answer(after=0.4)
    async with lab.running(deployment()) as engine:
        await asyncio.sleep(3.0)
        answered = await backends(engine, 10.0)
        assert set(answered) == {"edge"}
        assert 3 <= len(lab.cloud.calls) <= 10.0 / TRIAL_INTERVAL_S + 1
        assert engine.snapshot.targets["m", "cloud"].available, "that they did not fit was known before"
        lab.cloud.infer = answer()
        assert (await backends(engine, TRIAL_INTERVAL_S + 1.0))[-1] == "cloud"


@in_virtual_time
async def test_a_trial_is_cut_off_in_time_like_any_other_attempt() -> None:
    lab = Lab()
    lab.cloud.probe_reply = SLOW
    lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        await engine.infer(request(within_s=0.25))
        await asyncio.sleep(TRIAL_INTERVAL_S)
        asked = request(within_s=0.25)
        response = await engine.infer(asked)
        assert virtual_loop().time() <= asked.arrived + 0.25
        assert [(record.backend, record.outcome) for record in response.route.attempts] == [
            ("cloud", Outcome.IGNORE),
            ("edge", Outcome.SUCCESS),
        ]


@in_virtual_time
async def test_one_slow_call_of_the_fallback_does_not_take_the_clouds_time() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        await backends(engine, 1.0)
        lab.edge.infer = answer(after=0.23)
        lab.cloud.infer = fail(BackendFailed("one error"))
        await engine.infer(request(within_s=0.5))
        lab.edge.infer = lab.cloud.infer = answer()
        assert set(await backends(engine, 3.0)) == {"cloud"}


@in_virtual_time
async def test_the_wait_for_a_turn_is_not_taken_for_slowness() -> None:
    lab = Lab()
    lab.edge.infer = answer(after=0.02)
    async with lab.running(deployment(plan(EDGE))) as engine:
        await asyncio.gather(*(engine.infer(request(within_s=5.0)) for _ in range(100)))
        engine.refresh()
        latency = engine.snapshot.targets["m", "edge"].latency
        assert latency is not None
        assert latency.p99(8) == pytest.approx(0.02, abs=0.011)
        waited = max(record.queue_s for response in lab.seen.answers for record in response.route.attempts)
        assert waited > 0.1, "the route says so all the same"


@in_virtual_time
async def test_a_few_slow_calls_do_not_make_everybody_wait_for_a_backend_that_hangs() -> None:
    lab = Lab()
    async with lab.running(deployment(plan(CLOUD, DEGRADED_EDGE))) as engine:
        await backends(engine, 1.0)
        lab.cloud.infer = answer(after=0.4)
        await asyncio.gather(*(engine.infer(request(within_s=2.0)) for _ in range(4)))
        lab.cloud.infer = answer()
        await backends(engine, 1.0)
        lab.cloud.infer = hang
        lab.cloud.calls.clear()
        assert set(await backends(engine, 10.0)) == {"edge"}
        assert len(lab.cloud.calls) <= 10.0 / TRIAL_INTERVAL_S + 3


@in_virtual_time
async def test_errors_do_not_make_a_backend_look_busy() -> None:
    lab = Lab()
    calls = 0

    async def one_in_twenty(call):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls % 20 == 0:
            return await fail(BackendFailed("now and then"), after=0.1)(call)
        return await answer(after=0.1)(call)

    lab.cloud.infer = one_in_twenty
    async with lab.running(deployment()) as engine:

        async def ask(at: float) -> str:
            await asyncio.sleep(at)
            return (await engine.infer(request(within_s=0.5))).route.backend

        answered = await asyncio.gather(*(ask(number / 20) for number in range(600)))
        assert answered[300:].count("edge") <= 300 * 0.06


@in_virtual_time
async def test_errors_of_others_do_not_end_a_call_that_is_well() -> None:
    lab = Lab()
    lab.cloud.infer = answer(0.7, after=0.5)
    async with lab.running(deployment(plan(CLOUD))) as engine:
        well = asyncio.create_task(engine.infer(request(within_s=2.0)))
        await asyncio.sleep(0.01)
        lab.cloud.infer = fail(BackendFailed("their inputs"), after=0.05)
        for _ in range(3):
            with pytest.raises(Exception, match="backend failed"):
                await engine.infer(request(within_s=2.0))
        assert (await well).route.backend == "cloud"


@in_virtual_time
async def test_users_inputs_that_always_fail_do_not_make_the_breaker_flap() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        lab.cloud.infer = fail(BackendFailed("what zeros do not show"), after=0.05)
        lab.cloud.probes.clear()
        await backends(engine, 10.0)
        assert lab.cloud.probes.count(True) <= 8


@in_virtual_time
async def test_a_call_that_its_own_library_cancels_is_lost_and_the_next_one_is_tried() -> None:
    lab = Lab()

    async def cancelled(call):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0.01)
        raise asyncio.CancelledError

    lab.cloud.infer = cancelled
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request())
    assert [(record.backend, record.error) for record in response.route.attempts] == [
        ("cloud", "backend-lost"),
        ("edge", None),
    ]
    assert lab.seen.ends == (1, 0, 0)


@in_virtual_time
async def test_a_probe_that_its_own_library_cancels_is_a_failed_probe_and_probing_goes_on() -> None:
    lab = Lab()

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async with lab.running(deployment()) as engine:
        lab.cloud.probe = cancelled
        await asyncio.sleep(1.0)
        assert not engine.snapshot.targets["m", "cloud"].available
        lab.cloud.probe = ready
        await asyncio.sleep(3.0)
        assert engine.snapshot.targets["m", "cloud"].available


@in_virtual_time
async def test_a_probe_that_fails_while_it_is_cancelled_does_not_keep_the_engine_from_ending() -> None:
    lab = Lab()

    async def fails_when_cancelled() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise BackendFailed("its connection was closed") from None

    async with asyncio.timeout(10), lab.running(deployment()):
        lab.cloud.probe = fails_when_cancelled
        await asyncio.sleep(0.25)
