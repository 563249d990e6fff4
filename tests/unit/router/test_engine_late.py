"""What is learnt from answers that come too late, and who is let go when a backend is found to be gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from router.errors import BackendFailed
from router.types import Reply
from tests.unit.samples import CLOUD, DEGRADED_EDGE, deployment, plan, request, rows
from tests.unit.standins import Lab, answer, fail, hang, ready, slow_probe
from tests.unit.virtual_time import in_virtual_time, virtual_loop

LARGE = {"x": np.full((1 << 12, 2), 0.5, np.float32)}
"""32 KiB."""


def thin_line(lab: Lab) -> None:
    """Large payloads take 300 ms from now on, and say so when nobody waits for them any more; small ones 10 ms."""
    quick = answer()

    async def infer(call):  # type: ignore[no-untyped-def]
        if call.payload_bytes < 1000:
            return await quick(call)
        started = virtual_loop().time()
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            virtual_loop().call_at(started + 0.3, call.late, 0.3)
            raise
        return Reply({"scores": call.payload["x"], "row": np.arange(1 << 12)}, 0.0, 0.3, 0.0)

    lab.cloud.infer = infer


@in_virtual_time
async def test_a_line_too_thin_for_a_payload_is_known_once_the_answers_came_too_late() -> None:
    lab = Lab()
    thin_line(lab)
    async with lab.running(deployment()) as engine:
        for late in await asyncio.gather(*(engine.infer(request(LARGE, within_s=0.25)) for _ in range(3))):
            assert late.route.attempts[0].error == "backend-timeout"
        await asyncio.sleep(1.0)
        asked = request(LARGE, within_s=0.25)
        response = await engine.infer(asked)
        assert [record.backend for record in response.route.attempts] == ["edge"]
        assert "no time for cloud, which usually takes 300 ms" in response.route.reason
        assert (await engine.infer(request(within_s=0.25))).route.backend == "cloud", "small ones go on"
        assert (await engine.infer(request(LARGE, within_s=2.0))).route.backend == "cloud", "and so do patient ones"


@in_virtual_time
async def test_that_a_small_probe_passed_says_nothing_about_large_payloads() -> None:
    lab = Lab()
    thin_line(lab)
    async with lab.running(deployment()) as engine:
        await asyncio.gather(*(engine.infer(request(LARGE, within_s=0.25)) for _ in range(3)))
        await asyncio.sleep(3.0)
        assert True in lab.cloud.probes, "three that were dropped opened it, and a synthetic probe closed it again"
        assert engine.snapshot.targets["m", "cloud"].available
        assert (await engine.infer(request(LARGE, within_s=0.25))).route.attempts[0].backend == "edge"
        assert (await engine.infer(request(within_s=0.25))).route.backend == "cloud"


@in_virtual_time
async def test_it_is_tried_again_after_a_minute() -> None:
    lab = Lab()
    thin_line(lab)
    async with lab.running(deployment()) as engine:
        await asyncio.gather(*(engine.infer(request(LARGE, within_s=0.25)) for _ in range(3)))
        await asyncio.sleep(1.0)
        assert (await engine.infer(request(LARGE, within_s=0.25))).route.attempts[0].backend == "edge"
        lab.cloud.infer = answer()
        await asyncio.sleep(62.0)
        assert (await engine.infer(request(LARGE, within_s=0.25))).route.backend == "cloud"


@in_virtual_time
async def test_whoever_waits_for_a_backend_that_is_found_gone_is_let_go() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment(plan(CLOUD, DEGRADED_EDGE))) as engine:
        lab.cloud.probe = slow_probe(30.0)
        asked = request(within_s=30.0)
        response = await engine.infer(asked)
        assert virtual_loop().time() - asked.arrived < 1.0, "not until its own cut-off, half a minute later"
        assert response.route.backend == "edge"
        assert response.route.attempts[0].error == "backend-lost"
        engine.refresh()
        assert engine.snapshot.targets["m", "cloud"].in_flight == 0
    assert lab.cloud.cancelled == 1


@in_virtual_time
async def test_those_that_failed_open_it_for_those_that_wait() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    lab.cloud.probe_reply = Reply({}, 0.0, 0.01, 0.03)
    async with lab.running(deployment(plan(CLOUD, DEGRADED_EDGE))) as engine:
        waiting = [asyncio.create_task(engine.infer(request(within_s=30.0))) for _ in range(3)]
        await asyncio.sleep(0.01)
        lab.cloud.infer = fail(BackendFailed("broken"))
        lab.cloud.probe = slow_probe(30.0)
        for _ in range(3):
            await engine.infer(request(within_s=30.0))
        ended = await asyncio.gather(*waiting)
        assert {end.route.backend for end in ended} == {"edge"}
        assert virtual_loop().time() < 1001.0


@in_virtual_time
async def test_being_let_go_early_does_not_make_a_backend_look_fast() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    lab.cloud.probe_reply = replace(lab.cloud.probe_reply, network_s=0.4)
    async with lab.running(deployment(plan(CLOUD, DEGRADED_EDGE))) as engine:
        before = engine.snapshot.targets["m", "cloud"].latency
        waiting = asyncio.create_task(engine.infer(request(rows(0.5), within_s=30.0)))
        await asyncio.sleep(0.01)
        lab.cloud.infer = fail(BackendFailed("broken"), after=0.01)
        lab.cloud.probe = slow_probe(30.0)
        for _ in range(3):
            await engine.infer(request(within_s=30.0))
        await waiting
        lab.cloud.probe = ready
        await asyncio.sleep(0.5)
        after = engine.snapshot.targets["m", "cloud"].latency
        assert before is not None
        assert after is not None
        assert after.p50(8) >= before.p50(8) - 1e-6
        assert after.p50(8) == pytest.approx(before.p50(8))
