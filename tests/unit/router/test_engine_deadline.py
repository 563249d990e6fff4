"""One deadline per request: the plan starts with whoever fits, a round trip that grows is believed, nobody is late."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from router.breaker import CHECK_INTERVAL_S
from router.engine import SNAPSHOT_INTERVAL_S
from router.errors import Overloaded
from router.instance import PROBE_TIMEOUT_S
from router.plan import MARGIN_S
from router.ports import Call
from router.types import Priority, Reply
from tests.unit.samples import CLOUD, DEGRADED_EDGE, EDGE, EDGE_IF_SURE, deployment, plan, request, rows
from tests.unit.standins import Lab, answer, hang, silent, slow_probe
from tests.unit.virtual_time import in_virtual_time, virtual_loop

SLOW = Reply({}, 0.0, 0.3, 0.1)
QUICK = Reply({}, 0.0, 0.0, 0.01)


@in_virtual_time
async def test_a_cloud_that_takes_longer_than_there_is_is_not_asked_and_the_reason_says_so() -> None:
    lab = Lab()
    lab.cloud.probe_reply = SLOW
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request(within_s=0.25))
        assert response.route.backend == "edge"
        assert [record.backend for record in response.route.attempts] == ["edge"]
        assert "no time for cloud, which usually takes 400 ms, with 250 ms left" in response.route.reason
        assert lab.cloud.calls == []
        patient = await engine.infer(request(within_s=5.0))
        assert patient.route.backend == "cloud"


@in_virtual_time
async def test_where_nobody_fits_the_first_is_tried_with_all_the_time_there_is() -> None:
    lab = Lab()
    lab.cloud.probe_reply = lab.edge.probe_reply = SLOW
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request(within_s=0.25))
    assert response.route.backend == "cloud"
    assert lab.cloud.deadlines[0] - lab.cloud.called_at[0] == pytest.approx(0.25 - MARGIN_S)


@in_virtual_time
async def test_a_held_answer_is_not_risked_for_a_cloud_that_does_not_fit() -> None:
    lab = Lab()
    lab.cloud.probe_reply = SLOW
    async with lab.running(deployment(plan(EDGE_IF_SURE, CLOUD))) as engine:
        response = await engine.infer(request(rows(0.1), within_s=0.25))
    assert (response.route.backend, response.route.degraded) == ("edge", True)
    assert "no time for cloud" in response.route.reason
    assert lab.cloud.calls == []


@in_virtual_time
async def test_a_round_trip_that_grows_is_believed_before_any_request_pays_for_it() -> None:
    lab = Lab()
    lab.cloud.probe_reply = QUICK
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = slow_probe(0.24)
        await asyncio.sleep(3 * (CHECK_INTERVAL_S + 0.24))
        assert engine.snapshot.targets["m", "cloud"].available
        response = await engine.infer(request(within_s=0.25))
        assert response.route.backend == "edge"
        assert lab.cloud.calls == []
        lab.cloud.probe = slow_probe(0.01)
        await asyncio.sleep(CHECK_INTERVAL_S + 0.24 + CHECK_INTERVAL_S + 0.02)
        assert (await engine.infer(request(within_s=0.25))).route.backend == "cloud", "and so is one that shrinks"


@in_virtual_time
async def test_silence_is_suspected_while_the_probe_still_waits_and_known_within_a_second() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        lab.cloud.probe = silent
        await asyncio.sleep(CHECK_INTERVAL_S + PROBE_TIMEOUT_S + SNAPSHOT_INTERVAL_S)
        asked = request(within_s=0.25)
        response = await engine.infer(asked)
        assert response.route.backend == "edge"
        assert virtual_loop().time() - asked.arrived < 0.1, "it pays nothing for a cloud that does not answer"
        await asyncio.sleep(1.0 - (virtual_loop().time() - 1000.0) % 1.0)
    assert lab.cloud.calls == []


@pytest.mark.parametrize("phase", [0.0, 0.05, 0.1, 0.15, 0.2, 0.24])
@in_virtual_time
async def test_silence_is_noticed_within_a_second_without_any_request(phase: float) -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        await asyncio.sleep(phase)
        lab.cloud.probe = silent
        await asyncio.sleep(1.0)
        assert not engine.snapshot.targets["m", "cloud"].available


@in_virtual_time
async def test_a_busy_backend_lets_the_urgent_go_first_and_refuses_who_cannot_be_answered_in_time() -> None:
    lab = Lab()
    lab.edge.infer = answer(after=0.1)
    lab.edge.probe_reply = replace(QUICK, compute_s=0.1)
    async with lab.running(deployment(plan(EDGE))) as engine:
        limit = engine.snapshot.targets["m", "edge"].limit

        async def ask(name: str, priority: Priority, within_s: float = 5.0) -> None:
            asked = request(within_s=within_s)
            asked.id, asked.priority = name, priority
            await engine.infer(asked)

        async with asyncio.TaskGroup() as asking:
            for number in range(limit):
                asking.create_task(ask(f"first {number}", Priority.LOW))
            await asyncio.sleep(0.01)
            asking.create_task(ask("low", Priority.LOW))
            asking.create_task(ask("normal", Priority.NORMAL))
            asking.create_task(ask("high", Priority.HIGH))
            await asyncio.sleep(0.01)
            engine.refresh()
            view = engine.snapshot.targets["m", "edge"]
            assert (view.in_flight, view.waiting) == (limit, 3)
            before = virtual_loop().time()
            with pytest.raises(Overloaded) as refused:
                await ask("hasty", Priority.NORMAL, within_s=0.15)
            assert virtual_loop().time() == before, "at once, not when its time is up"
            assert refused.value.retry_after_s
        assert [call.request_id for call in lab.edge.calls[-3:]] == ["high", "normal", "low"]
        engine.refresh()
        view = engine.snapshot.targets["m", "edge"]
        assert (view.in_flight, view.waiting) == (0, 0)


@in_virtual_time
async def test_a_backend_without_room_leads_to_the_next_one() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.2)
    lab.cloud.probe_reply = replace(QUICK, compute_s=0.2)
    async with lab.running(deployment()) as engine:
        limit = engine.snapshot.targets["m", "cloud"].limit
        asking = [asyncio.create_task(engine.infer(request(within_s=0.4))) for _ in range(2 * limit)]
        routes = [(await task).route for task in asking]
        assert [route.backend for route in routes] == ["cloud"] * limit + ["edge"] * limit
        assert routes[-1].attempts[0].error == "overloaded"
        assert engine.snapshot.targets["m", "cloud"].available, "being busy is no illness"


@in_virtual_time
async def test_one_that_waits_and_hangs_up_leaves_its_place() -> None:
    lab = Lab()
    lab.edge.infer = answer(after=0.1)
    async with lab.running(deployment(plan(EDGE))) as engine:
        limit = engine.snapshot.targets["m", "edge"].limit
        asking = [asyncio.create_task(engine.infer(request(within_s=5.0))) for _ in range(limit + 3)]
        await asyncio.sleep(0.01)
        asking[-2].cancel()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert [isinstance(end, asyncio.CancelledError) for end in ended] == [False] * (limit + 1) + [True, False]
        engine.refresh()
        view = engine.snapshot.targets["m", "edge"]
        assert (view.in_flight, view.waiting) == (0, 0)


@in_virtual_time
async def test_an_exploring_order_is_taken_by_a_bounded_share() -> None:
    lab = Lab()
    both = plan(EDGE, CLOUD)
    exploring = replace(both, explore=(CLOUD, EDGE))
    async with lab.running(replace(deployment(exploring))) as engine:
        backends = [(await engine.infer(request())).route.backend for _ in range(1000)]
    assert 10 <= backends.count("cloud") <= 1000 * 0.01 + 10


@in_virtual_time
async def test_a_degraded_answer_says_so_when_the_cloud_did_not_fit() -> None:
    lab = Lab()
    lab.cloud.probe_reply = SLOW
    async with lab.running(deployment(plan(CLOUD, DEGRADED_EDGE))) as engine:
        assert (await engine.infer(request(within_s=0.25))).route.degraded


@in_virtual_time
async def test_a_device_that_runs_late_keeps_more_time_for_the_fallback() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        await asyncio.sleep(1.0)
        idle = engine.prepare(request()).plan.attempts[0].reserve_s
        virtual_loop().lateness = 0.02
        await asyncio.sleep(1.0)
        engine.refresh()
        lab.edge.probes.clear()
        busy = engine.prepare(request(within_s=0.5)).plan.attempts[0].reserve_s
        assert busy >= idle + 0.03


@in_virtual_time
async def test_calls_that_are_cut_off_shrink_what_may_be_under_way_at_once() -> None:
    """One in six hangs: those that are answered are as quick as ever, and alone would have the limit grow."""
    lab = Lab()
    quick, calls = answer(after=0.01), itertools.count()
    hangs = False

    async def infer(call: Call) -> Reply:
        return await (hang(call) if hangs and not next(calls) % 6 else quick(call))

    lab.cloud.infer = infer
    async with lab.running(deployment()) as engine:

        def size() -> int:
            return engine.snapshot.targets["m", "cloud"].limit

        async def flights(count: int) -> int:
            """The limit after so many flights of as many calls as are let in."""
            for _ in range(count):
                await asyncio.gather(*(engine.infer(request(within_s=0.25)) for _ in range(size())))
            await asyncio.sleep(2 * SNAPSHOT_INTERVAL_S)
            return size()

        before = await flights(10)
        hangs = True
        assert await flights(20) < before
        assert engine.snapshot.targets["m", "cloud"].available, "it is the limit that acts, not the breaker"
