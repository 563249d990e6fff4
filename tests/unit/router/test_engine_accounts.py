"""What a request cost, what left the premises, and that the observer hears of each request once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from router.deployment import Shares
from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    DeadlineExceeded,
    FailedTogether,
    NoBackendAvailable,
    NotBegun,
)
from router.ports import Call
from router.types import Reply
from tests.unit.samples import (
    CLOUD_USD,
    CLOUD_USD_PER_BYTE,
    EDGE,
    EDGE_USD,
    IMAGE,
    deployment,
    plan,
    request,
    rows,
)
from tests.unit.standins import FakeVariant, Lab, answer, fail, hang
from tests.unit.virtual_time import in_virtual_time

ROW_BYTES = 8


@pytest.mark.parametrize("count", [1, 3, 64])
@in_virtual_time
async def test_every_row_is_an_inference_and_every_byte_is_egress(count: int) -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request(rows(*[0.5] * count)))
    sent = ROW_BYTES * count
    assert response.route.bytes_out == sent
    assert response.route.cost_usd == pytest.approx(CLOUD_USD * count + CLOUD_USD_PER_BYTE * sent)
    assert response.route.attempts[0].site == "cloud"
    assert response.route.attempts[0].payload_bytes == sent


@in_virtual_time
async def test_nothing_leaves_with_the_device() -> None:
    lab = Lab()
    async with lab.running(deployment(plan(EDGE))) as engine:
        response = await engine.infer(request(rows(0.5, 0.5)))
    assert response.route.bytes_out == 0
    assert response.route.cost_usd == pytest.approx(2 * EDGE_USD)
    assert response.route.attempts[0].site == "on-premises"
    assert response.route.attempts[0].payload_bytes == 2 * ROW_BYTES


@in_virtual_time
async def test_an_image_is_one_inference_and_its_file_is_what_leaves() -> None:
    lab = Lab()
    variants = {"edge": FakeVariant(), "cloud": FakeVariant(takes_image=True)}
    async with lab.running(deployment(variants=variants)) as engine:
        response = await engine.infer(request(IMAGE))
    assert response.route.bytes_out == len(IMAGE.content)
    assert response.route.cost_usd == pytest.approx(CLOUD_USD + CLOUD_USD_PER_BYTE * len(IMAGE.content))


@pytest.mark.parametrize(
    ("error", "cloud_usd"),
    [
        (BackendUnavailable, 0.0),
        (BackendFailed, CLOUD_USD + CLOUD_USD_PER_BYTE * ROW_BYTES),
        (BackendTimeout, CLOUD_USD + CLOUD_USD_PER_BYTE * ROW_BYTES),
        (BackendRejectedInput, CLOUD_USD + CLOUD_USD_PER_BYTE * ROW_BYTES),
    ],
)
@in_virtual_time
async def test_what_was_sent_costs_whatever_became_of_it(error: type[BackendError], cloud_usd: float) -> None:
    lab = Lab()
    lab.cloud.infer = fail(error("no"))
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request())
    cloud, *_, edge = response.route.attempts
    assert cloud.cost_usd == pytest.approx(cloud_usd)
    assert edge.cost_usd == pytest.approx(EDGE_USD)
    assert response.route.cost_usd == pytest.approx(cloud_usd + EDGE_USD)


@in_virtual_time
async def test_a_cloud_that_was_cut_off_costs_and_its_bytes_have_left() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request())
    assert response.route.backend == "edge"
    assert response.route.bytes_out == ROW_BYTES
    assert response.route.cost_usd == pytest.approx(CLOUD_USD + CLOUD_USD_PER_BYTE * ROW_BYTES + EDGE_USD)


@in_virtual_time
async def test_what_was_never_sent_costs_nothing_and_nothing_has_left() -> None:
    lab = Lab()
    lab.cloud.open = BackendUnavailable("no such model")
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request())
    assert response.route.bytes_out == 0
    assert response.route.cost_usd == pytest.approx(EDGE_USD)


@in_virtual_time
async def test_the_replys_times_stand_in_the_route() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.02)
    async with lab.running(deployment()) as engine:
        (record,) = (await engine.infer(request())).route.attempts
    assert (record.queue_s, record.network_s, record.compute_s) == pytest.approx((0.0, 0.001, 0.019))


@in_virtual_time
async def test_the_observer_hears_of_each_request_once_however_it_ends() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        await engine.infer(request())
        assert lab.seen.ends == (1, 0, 0)
        lab.cloud.infer = fail(BackendFailed("no"))
        await engine.infer(request())
        assert lab.seen.ends == (2, 0, 0)
        lab.edge.infer = fail(BackendFailed("no"))
        with pytest.raises(NoBackendAvailable):
            await engine.infer(request())
        assert lab.seen.ends == (2, 1, 0)
        lab.edge.infer = hang
        with pytest.raises(DeadlineExceeded):
            await engine.infer(request())
        assert lab.seen.ends == (2, 2, 0)
        calling = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0.1)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert lab.seen.ends == (2, 2, 1)
        assert len(lab.seen.plans) == 5


@in_virtual_time
async def test_the_observer_hears_what_the_caller_hears() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request())
        lab.cloud.infer = lab.edge.infer = fail(BackendFailed("no"))
        with pytest.raises(NoBackendAvailable) as caught:
            await engine.infer(request())
    assert lab.seen.answers == [response]
    model, policy, error, attempts = lab.seen.failures[0]
    assert (model, policy) == ("m", "p")
    assert error is caught.value
    assert [record.backend for record in attempts] == ["cloud", "edge"]


@in_virtual_time
async def test_a_plan_is_reused_until_the_world_changes() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        prepared = engine.prepare(request())
        assert engine.prepare(request()) is prepared
        await engine.infer(request())
        engine.refresh()
        assert engine.prepare(request()) is not prepared
        assert lab.seen.ends == (1, 0, 0)


@in_virtual_time
async def test_requests_that_policies_cannot_tell_apart_share_a_plan_and_others_do_not() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        plan_of = engine.prepare(request(rows(0.1)))
        assert engine.prepare(request(rows(0.9))) is plan_of
        assert plan_of.facts == ("m", "unclassified", 8, False)
        assert engine.prepare(request(rows(0.1, 0.1, 0.1))).facts == ("m", "unclassified", 32, False)
        assert engine.prepare(request(rows(0.1, 0.1, 0.1, 0.1))).facts == ("m", "unclassified", 32, False)
        assert engine.prepare(request(replace(IMAGE, content=b"8 bytes."))).facts == ("m", "unclassified", 8, True)
        assert engine.prepare(request(rows(0.1), data_class="phi")).facts == ("m", "phi", 8, False)


@pytest.mark.parametrize("then", ["an answer", "unavailable"])
@in_virtual_time
async def test_what_failed_together_with_others_is_sent_again_alone_and_counted_again(then: str) -> None:
    """What left the premises twice is told as twice; what never got there the second time costs once."""
    lab, alone = Lab(), []

    async def infer(call: Call) -> Reply:
        alone.append(call.alone)
        if not call.alone:
            raise FailedTogether("somebody's row is bad")
        if then == "unavailable":
            raise BackendUnavailable("gone")
        return await answer()(call)

    lab.cloud.infer = infer
    async with lab.running(deployment()) as engine:
        response = await engine.infer(request())
    first = response.route.attempts[0]
    assert alone[:2] == [False, True]
    assert (first.backend, first.bytes_out) == ("cloud", 2 * ROW_BYTES)
    once = CLOUD_USD + CLOUD_USD_PER_BYTE * ROW_BYTES
    assert first.cost_usd == pytest.approx(2 * once if then == "an answer" else once)
    assert response.route.backend == ("cloud" if then == "an answer" else "edge")


@pytest.mark.parametrize("refusals", [1, 2])
@in_virtual_time
async def test_a_call_that_a_server_would_not_begin_is_made_once_more_and_paid_once(refusals: int) -> None:
    """What left the premises twice is told as twice; the connection that was going away is no sign of ill health."""
    lab, asked = Lab(), 0

    async def infer(call: Call) -> Reply:
        nonlocal asked
        asked += 1
        if asked <= refusals:
            raise NotBegun("the server is going away")
        return await answer()(call)

    lab.cloud.infer = infer
    async with lab.running(replace(deployment(), shares=Shares(retries=0.0))) as engine:
        response = await engine.infer(request())
    first = response.route.attempts[0]
    assert asked == 2
    assert (first.backend, first.bytes_out) == ("cloud", 2 * ROW_BYTES)
    once = CLOUD_USD + CLOUD_USD_PER_BYTE * ROW_BYTES
    assert first.cost_usd == pytest.approx(once if refusals == 1 else 0.0)
    assert first.error == (None if refusals == 1 else "backend-unavailable")
    assert response.route.backend == ("cloud" if refusals == 1 else "edge")
