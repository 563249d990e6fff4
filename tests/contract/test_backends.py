"""What the engine expects of every backend, held against the real thing.

ONNX Runtime, Triton over gRPC, Triton over HTTP, another gateway of ours before that Triton; of a Hailo chip there is
only a stand-in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.cloud import TritonProcess
from router.errors import BackendError, BackendRejectedInput, BackendTimeout
from router.model import Tensor
from router.types import Reply
from tests.contract.backends import MODELS, Subject, call, hailo, oip_http, onnx, pixels, triton
from tests.gateway_process import GatewayProcess
from tests.hat import standin, write_samples

Holdout = tuple[Tensor, Tensor]


@pytest.fixture
def hat(tmp_path: Path) -> Iterator[Subject]:
    """The stand-in's chip."""
    with standin() as module:
        yield hailo(tmp_path, write_samples(module, tmp_path))


@pytest.fixture(params=["onnx", "triton", "triton-http", "gateway", "hailo"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each backend in turn; Triton and the gateway are started for the first test that needs them."""
    if request.param == "onnx":
        return onnx()
    if request.param == "hailo":
        subject: Subject = request.getfixturevalue("hat")
        return subject
    if request.param == "gateway":
        gateway: GatewayProcess = request.getfixturevalue("far_gateway")
        return oip_http(gateway.url)
    process: TritonProcess = request.getfixturevalue("triton")
    return triton(process.grpc_url) if request.param == "triton" else oip_http(process.http_url)


def soon(seconds: float = 20.0) -> float:
    """A deadline that nothing here should need."""
    return time.monotonic() + seconds


def fits(reply: Reply, model: str, rows: int) -> None:
    """The outputs are exactly those that the spec declares, and the times are times."""
    spec = MODELS[model].spec
    assert reply.outputs.keys() == spec.outputs.keys()
    for name, tensor in reply.outputs.items():
        spec.outputs[name].check(tensor, name)
        assert tensor.shape[0] == rows
    assert min(reply.queue_s, reply.network_s, reply.compute_s) >= 0


async def test_held_out_digits_get_the_answers_that_the_model_is_known_for(subject: Subject, holdout: Holdout) -> None:
    given, labels = holdout
    async with subject.opened() as servable:
        await servable.probe(soon(), synthetic=True)
        reply = await servable.infer(pixels(given), soon())
    fits(reply, "digits", len(labels))
    assert int((reply.outputs["label"] == labels).sum()) == subject.correct
    np.testing.assert_array_equal(reply.outputs["probabilities"].argmax(axis=1), reply.outputs["label"])
    np.testing.assert_allclose(reply.outputs["probabilities"].sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 200])
async def test_rows_are_answered_in_order_whatever_their_number(subject: Subject, holdout: Holdout, rows: int) -> None:
    given, _ = holdout
    async with subject.opened() as servable:
        await servable.probe(soon(), synthetic=True)
        together = await servable.infer(pixels(given[:rows]), soon())
        first, last = [await servable.infer(pixels(given[at : at + 1]), soon()) for at in (0, rows - 1)]
    fits(together, "digits", rows)
    for at, alone in ((0, first), (rows - 1, last)):
        np.testing.assert_allclose(
            together.outputs["probabilities"][at], alone.outputs["probabilities"][0], rtol=1e-4, atol=1e-6
        )


async def test_a_second_model_beside_the_first(subject: Subject, holdout: Holdout) -> None:
    given, _ = holdout
    images = np.ascontiguousarray(given[:5].reshape(5, 8, 8), dtype=np.float32)
    backend = subject.backend()
    opened = {name: await backend.open(entry.spec, subject.variant(name)) for name, entry in MODELS.items()}
    embedded = await opened["embed"].infer(call({"image": images}), soon())
    digits = await opened["digits"].infer(pixels(given[:5]), soon())
    fits(embedded, "embed", 5)
    fits(digits, "digits", 5)
    np.testing.assert_allclose(np.linalg.norm(embedded.outputs["embedding"], axis=1), 1, atol=1e-4)
    for servable in opened.values():
        await servable.close()
    await backend.close()


async def test_32_calls_at_once_get_their_own_answers(subject: Subject, holdout: Holdout) -> None:
    given, _ = holdout
    async with subject.opened() as servable:
        alone = [(await servable.infer(pixels(given[at : at + 1]), soon())).outputs for at in range(32)]
        together = await asyncio.gather(*(servable.infer(pixels(given[at : at + 1]), soon()) for at in range(32)))
    assert len({int(outputs["label"][0]) for outputs in alone}) > 5, "otherwise mixed-up answers would go unnoticed"
    for expected, reply in zip(alone, together, strict=True):
        np.testing.assert_allclose(reply.outputs["probabilities"], expected["probabilities"], rtol=1e-4, atol=1e-6)


async def test_times_add_up_to_no_more_than_what_passed(subject: Subject, holdout: Holdout) -> None:
    given, _ = holdout
    async with subject.opened() as servable:
        await servable.probe(soon(), synthetic=True)
        for rows in (1, 1, 64, 300):
            started = time.monotonic()
            reply = await servable.infer(pixels(given[:rows]), soon())
            elapsed = time.monotonic() - started
            fits(reply, "digits", rows)
            assert reply.queue_s + reply.network_s + reply.compute_s <= elapsed + 1e-6


@pytest.mark.parametrize("rows", [1, 540])
async def test_cancelled_calls_leave_nothing_and_the_next_one_works(
    subject: Subject, holdout: Holdout, rows: int
) -> None:
    given, _ = holdout
    many = np.tile(given[:rows], (10, 1)) if rows > 1 else given[:1]
    async with subject.opened() as servable:
        await servable.probe(soon(), synthetic=True)
        await servable.infer(pixels(given[:1]), soon())
        before = asyncio.all_tasks()
        calling = [asyncio.create_task(servable.infer(pixels(many), soon())) for _ in range(8)]
        await asyncio.sleep(0)
        for task in calling:
            task.cancel()
        ended = await asyncio.gather(*calling, return_exceptions=True)
        assert all(isinstance(end, Reply | asyncio.CancelledError) for end in ended)
        fits(await servable.infer(pixels(given[:3]), soon()), "digits", 3)
        async with asyncio.timeout(10):
            while asyncio.all_tasks() != before:  # noqa: ASYNC110 there is no event for "a task has gone"
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("rows", [1, 300])
async def test_a_deadline_that_has_passed_gets_a_reply_or_a_timeout(
    subject: Subject, holdout: Holdout, rows: int
) -> None:
    given, _ = holdout
    async with subject.opened() as servable:
        await servable.probe(soon(), synthetic=True)
        async with asyncio.timeout(10):
            try:
                fits(await servable.infer(pixels(given[:rows]), time.monotonic() - 1), "digits", rows)
            except BackendTimeout as error:
                assert error.detail  # noqa: PT017 either end is fine, and nothing else is
        fits(await servable.infer(pixels(given[:rows]), soon()), "digits", rows)


async def test_a_probe_asks_or_tries(subject: Subject) -> None:
    async with subject.opened() as servable:
        assert await servable.probe(soon(), synthetic=False) is None
        reply = await servable.probe(soon(), synthetic=True)
        assert reply is not None
        fits(reply, "digits", 1)
        assert await servable.probe(soon(), synthetic=False) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixels": np.zeros((1, 63), np.float32)},
        {"pixels": np.zeros((1, 64), np.int64)},
        {"pixels": np.zeros((1, 8, 8), np.float32)},
    ],
    ids=["shape", "dtype", "rank"],
)
async def test_input_that_is_not_the_models_is_rejected_and_the_next_call_works(
    subject: Subject, wrong: dict[str, Tensor]
) -> None:
    async with subject.opened() as servable:
        with pytest.raises(BackendError) as caught:
            await servable.infer(call(wrong), soon())
        assert isinstance(caught.value, BackendRejectedInput), caught.value.detail
        fits(await servable.infer(pixels(np.zeros((1, 64))), soon()), "digits", 1)


async def test_an_input_of_another_name_is_a_backend_error_and_the_next_call_works(subject: Subject) -> None:
    async with subject.opened() as servable:
        with pytest.raises(BackendError):
            await servable.infer(call({"nonsense": np.zeros((1, 64), np.float32)}), soon())
        fits(await servable.infer(pixels(np.zeros((1, 64))), soon()), "digits", 1)


async def test_wrong_input_in_a_large_batch_is_rejected_as_it_is_in_a_small_one(subject: Subject) -> None:
    async with subject.opened() as servable:
        await servable.probe(soon(), synthetic=True)
        with pytest.raises(BackendRejectedInput):
            await servable.infer(call({"pixels": np.zeros((200, 63), np.float32)}), soon())


async def test_inputs_are_not_written_to(subject: Subject, holdout: Holdout) -> None:
    given = np.array(holdout[0][:4], dtype=np.float32)
    kept = given.copy()
    given.flags.writeable = False
    async with subject.opened() as servable:
        fits(await servable.infer(call({"pixels": given}), soon()), "digits", 4)
    np.testing.assert_array_equal(given, kept)


async def test_closing_leaves_no_task_and_it_can_be_opened_again(subject: Subject) -> None:
    before = asyncio.all_tasks()
    for _ in range(3):
        async with subject.opened() as servable:
            fits(await servable.infer(pixels(np.zeros((1, 64))), soon()), "digits", 1)
    assert asyncio.all_tasks() == before


async def test_a_backend_that_was_never_used_can_be_closed(subject: Subject) -> None:
    before = asyncio.all_tasks()
    await subject.backend().close()
    assert asyncio.all_tasks() == before
