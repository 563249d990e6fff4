"""Attempt after attempt, each within its cut-off: what a caller gets when backends fail, hang or cannot be reached."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    DeadlineExceeded,
    NoBackendAvailable,
    Outcome,
    RouterError,
    UnprocessableImage,
)
from router.plan import MARGIN_S
from tests.unit.samples import (
    CLOUD,
    DEGRADED_EDGE,
    EDGE,
    IMAGE,
    deployment,
    plan,
    request,
    rows,
)
from tests.unit.standins import FakeVariant, Lab, answer, fail, hang
from tests.unit.virtual_time import FOREVER, in_virtual_time, virtual_loop

EVERY_KIND = [BackendError, BackendFailed, BackendUnavailable, BackendTimeout, BackendRejectedInput]


@in_virtual_time
async def test_the_first_answer_is_the_answer() -> None:
    lab = Lab()
    lab.cloud.infer = answer(0.7)
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request(rows(0.1, 0.2)))
    assert response.outputs["scores"].ravel().tolist() == pytest.approx([0.7] * 4)
    assert (response.route.backend, response.route.variant, response.route.policy) == ("cloud", "v1", "p")
    assert not response.route.degraded
    assert response.route.reason == "the test says so"
    assert response.route.latency_s == pytest.approx(0.01)
    assert lab.edge.calls == []


@pytest.mark.parametrize("kind", EVERY_KIND)
@in_virtual_time
async def test_every_backend_error_leads_to_the_next_attempt(kind: type[BackendError]) -> None:
    lab = Lab()
    lab.cloud.infer = fail(kind("no luck"))
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request())
    assert response.route.backend == "edge"
    assert response.route.degraded
    assert f"cloud: {kind.code}" in response.route.reason
    first, *retries, second = response.route.attempts
    assert [record.backend for record in retries] == ["cloud"] * (kind is BackendUnavailable)
    assert (first.backend, first.error, first.outcome) == ("cloud", kind.code, kind.outcome)
    assert (second.backend, second.error, second.outcome) == ("edge", None, Outcome.SUCCESS)


@in_virtual_time
async def test_what_the_contract_does_not_allow_is_a_failure_like_any_other() -> None:
    lab = Lab()
    lab.cloud.infer = fail(ZeroDivisionError("a vendor's library"))
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request())
    assert response.route.backend == "edge"
    assert response.route.attempts[0].error == "backend-failed"
    assert response.route.attempts[0].outcome is Outcome.DROPPED


@pytest.mark.parametrize("local_p99_s", [0.01, 0.1, 0.2])
@in_virtual_time
async def test_a_hanging_cloud_is_cut_off_so_that_the_fallback_still_fits(local_p99_s: float) -> None:
    lab = Lab()
    lab.cloud.infer = hang
    lab.edge.infer = answer(after=local_p99_s)
    lab.edge.probe_reply = replace(lab.edge.probe_reply, compute_s=local_p99_s, network_s=0.0)
    async with lab.running(deployment()) as engine:
        asked = request(within_s=0.5)
        response = await engine.infer(asked)
        assert virtual_loop().time() <= asked.arrived + 0.5
        assert lab.edge.called_at[0] - asked.arrived == pytest.approx(0.5 - local_p99_s - 2 * MARGIN_S)
    assert response.route.backend == "edge"
    assert lab.cloud.cancelled == 1
    assert response.route.attempts[0].error == "backend-timeout"


@in_virtual_time
async def test_a_slow_fallback_does_not_take_the_first_ones_chance_away() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.2)
    lab.edge.probe_reply = replace(lab.edge.probe_reply, compute_s=9.0)
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request(within_s=0.5))
        assert lab.cloud.deadlines[0] - lab.cloud.called_at[0] == pytest.approx(0.5 - MARGIN_S)
    assert response.route.backend == "cloud"


@in_virtual_time
async def test_the_time_that_stages_take_does_not_delay_the_cut_off() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    policy = plan(replace(CLOUD, stages=("decode",)), replace(DEGRADED_EDGE, stages=("decode",)))
    async with lab.running(deployment(policy)) as engine:
        virtual_loop().thread_seconds = 0.2
        asked = request(IMAGE, within_s=0.5)
        response = await engine.infer(asked)
        assert lab.edge.called_at[0] <= lab.cloud.deadlines[0] + 1e-9
        assert virtual_loop().time() <= asked.arrived + 0.5
    assert response.route.backend == "edge"


@in_virtual_time
async def test_a_backend_is_told_the_cut_off_and_not_the_deadline() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        asked = request(within_s=0.5)
        await engine.infer(asked)
    assert lab.cloud.deadlines == [pytest.approx(asked.arrived + 0.5 - 0.01 - 2 * MARGIN_S)]


@in_virtual_time
async def test_a_request_that_names_no_deadline_gets_the_models() -> None:
    lab = Lab()
    lab.edge.infer = hang
    async with lab.running(deployment(plan(EDGE), deadline_s=0.3)) as engine:
        asked = request()
        with pytest.raises(DeadlineExceeded, match="deadline of 300 ms; edge: backend-timeout"):
            await engine.infer(asked)
        assert virtual_loop().time() == pytest.approx(asked.arrived + 0.3 - MARGIN_S)


@in_virtual_time
async def test_when_all_hang_the_caller_hears_at_the_deadline() -> None:
    lab = Lab()
    lab.edge.infer = lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        asked = request(within_s=0.5)
        with pytest.raises(DeadlineExceeded):
            await engine.infer(asked)
        assert virtual_loop().time() == pytest.approx(asked.arrived + 0.5 - MARGIN_S)
    assert (lab.cloud.cancelled, lab.edge.cancelled) == (1, 1)


@in_virtual_time
async def test_a_deadline_that_has_passed_asks_nobody() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.infer(request(within_s=-0.1))
    assert lab.cloud.calls == lab.edge.calls == []


@pytest.mark.parametrize(
    ("edge", "cloud", "expected"),
    [
        (BackendFailed, BackendFailed, NoBackendAvailable),
        (BackendUnavailable, BackendRejectedInput, NoBackendAvailable),
        (BackendRejectedInput, BackendRejectedInput, BackendRejectedInput),
        (BackendRejectedInput, BackendUnavailable, BackendRejectedInput),
    ],
)
@in_virtual_time
async def test_when_all_fail_the_error_says_what_to_do(
    edge: type[BackendError], cloud: type[BackendError], expected: type[RouterError]
) -> None:
    lab = Lab()
    lab.edge.infer, lab.cloud.infer = fail(edge("edge says no")), fail(cloud("cloud says no"))
    async with lab.running(deployment()) as engine:
        with pytest.raises(expected) as caught:
            await engine.infer(request())
    if expected is NoBackendAvailable:
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0
    else:
        assert caught.value.detail == "edge says no"


@in_virtual_time
async def test_an_image_goes_as_it_is_where_it_is_taken_and_staged_where_it_is_not() -> None:
    lab = Lab()
    lab.cloud.infer = fail(BackendFailed("no"))
    variants = {"edge": FakeVariant(), "cloud": FakeVariant(takes_image=True)}
    policy = plan(CLOUD, replace(DEGRADED_EDGE, stages=("decode",)))
    async with lab.running(deployment(policy, variants=variants)) as engine:
        virtual_loop().thread_seconds = 0.02
        response = await engine.infer(request(IMAGE))
    assert lab.cloud.calls[0].payload is IMAGE
    assert lab.cloud.calls[0].payload_bytes == len(IMAGE.content)
    assert lab.edge.calls[0].payload is lab.staged
    assert [record.stages_s for record in response.route.attempts] == [0, pytest.approx(0.02)]


@in_virtual_time
async def test_stages_run_once_whatever_number_of_attempts_needs_them() -> None:
    lab = Lab()
    lab.cloud.infer = fail(BackendFailed("no"))
    policy = plan(replace(CLOUD, stages=("decode",)), replace(DEGRADED_EDGE, stages=("decode",)))
    async with lab.running(deployment(policy)) as engine:
        await engine.infer(request(IMAGE))
    assert lab.stagings == 1
    assert lab.edge.calls[0].payload is lab.cloud.calls[0].payload is lab.staged


@in_virtual_time
async def test_an_image_that_cannot_be_decoded_is_the_callers_fault_and_nobody_is_asked() -> None:
    lab = Lab()
    lab.staged = UnprocessableImage("not an image")
    policy = plan(replace(EDGE, stages=("decode",)), CLOUD)
    async with lab.running(deployment(policy)) as engine:
        with pytest.raises(UnprocessableImage):
            await engine.infer(request(IMAGE))
        assert engine.snapshot.targets["m", "edge"].available
    assert lab.edge.calls == lab.cloud.calls == []
    assert lab.seen.failures[0][3][0].error == "unprocessable-image"
    assert lab.seen.ends == (0, 1, 0)


@in_virtual_time
async def test_stages_that_do_not_end_leave_time_for_the_fallback_and_blame_nobody() -> None:
    lab = Lab()
    variants = {"edge": FakeVariant(), "cloud": FakeVariant(takes_image=True)}
    policy = plan(replace(EDGE, stages=("decode",)), CLOUD)
    async with lab.running(deployment(policy, variants=variants)) as engine:
        virtual_loop().thread_seconds = FOREVER
        for _ in range(4):
            response = await engine.infer(request(IMAGE, within_s=0.5))
            assert response.route.backend == "cloud"
        assert engine.snapshot.targets["m", "edge"].available
    assert lab.edge.calls == []


@in_virtual_time
async def test_many_at_once_get_their_own_answers() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        firsts = [index / 100 for index in range(50)]
        responses = await asyncio.gather(*(engine.infer(request(rows(first))) for first in firsts))
        assert engine._planner.world.generation.targets["m", "cloud"].instance.admission.in_flight == 0
    assert [float(response.outputs["scores"][0, 0]) for response in responses] == pytest.approx(firsts)
