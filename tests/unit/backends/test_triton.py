"""The Triton servable against a stand-in for the generated stub: servers that answer what no Triton should."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from backends.server import ABANDONED_FOR_S, MAX_BATCHES, RENEW_AFTER, ServerVariant
from backends.triton import TritonOptions, TritonServable
from backends.triton_channel import TritonChannel
from router.errors import (
    BackendError,
    BackendFailed,
    BackendLost,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
)
from router.model import ModelSpec, TensorSpec
from router.ports import Call
from router.types import Reply, nbytes

SPEC = ModelSpec("m", "1", {"x": TensorSpec("float32", (-1, 2))}, {"y": TensorSpec("float32", (-1,))})


def answer(
    datatype: str = "FP32", shape: tuple[int, ...] = (1,), raw: bytes | None = b"\0\0\0\0", name: str = "y"
) -> Any:
    """What a server answers."""
    response = service_pb2.ModelInferResponse(model_name="m")
    response.outputs.add(name=name, datatype=datatype, shape=shape)
    if raw is not None:
        response.raw_output_contents.append(raw)
    return response


class Stub:
    """A server that answers every inference with the same, and has a maximum batch size."""

    def __init__(self, response: Any, max_rows: int = 0, ready: bool = True) -> None:
        self.response = response
        self.max_rows = max_rows
        self.ready = ready
        self.requests: list[Any] = []
        self.timeouts: list[float] = []

    def ModelInfer(self, request: Any, timeout: float) -> asyncio.Future[Any]:  # noqa: N802
        self.requests.append(request)
        self.timeouts.append(timeout)
        call = asyncio.get_running_loop().create_future()
        if isinstance(self.response, Exception):
            call.set_exception(self.response)
        else:
            call.set_result(self.response)
        return call

    async def ModelReady(self, request: Any, timeout: float) -> Any:  # noqa: N802
        return SimpleNamespace(ready=self.ready)

    async def ModelStatistics(self, request: Any, timeout: float) -> Any:  # noqa: N802
        return service_pb2.ModelStatisticsResponse()

    async def ModelConfig(self, request: Any, timeout: float) -> Any:  # noqa: N802
        return SimpleNamespace(config=SimpleNamespace(max_batch_size=self.max_rows))


def failure(code: grpc.StatusCode, details: str | None = "the details") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def served_by(stub: Stub) -> TritonChannel:
    """A channel that leads to the stand-in."""
    channel = TritonChannel("grpc://127.0.0.1:9")
    channel.stub = stub
    return channel


async def infer(stub: Stub, rows: int = 1, *, probed: bool = False) -> Reply:
    servable = TritonServable(served_by(stub), SPEC, ServerVariant("m", "1"))
    deadline = time.monotonic() + 5
    if probed:
        response, stub.response = stub.response, answer()
        await servable.probe(deadline, synthetic=True)
        stub.response = response
        stub.requests.clear()
    payload = {"x": np.zeros((rows, 2), np.float32)}
    return await servable.infer(Call(payload, nbytes(payload), rows, "r1", {}), deadline)


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
async def test_a_dimension_of_one_too_many_is_taken_off(shape: tuple[int, ...]) -> None:
    assert (await infer(Stub(answer(shape=shape)))).outputs["y"].shape == (1,)


@pytest.mark.parametrize(
    "response",
    [
        answer(datatype="FP64"),
        answer(datatype="nonsense"),
        answer(shape=(1, 2)),
        answer(shape=(0,), raw=b""),
        answer(shape=(-1,)),
        answer(shape=(2,)),
        answer(shape=()),
        answer(raw=b"123"),
        answer(raw=b""),
        answer(raw=None),
        answer(name="z"),
        service_pb2.ModelInferResponse(),
    ],
)
async def test_what_is_not_the_models_output_is_a_failure(response: Any) -> None:
    with pytest.raises(BackendFailed):
        await infer(Stub(response))


CODES = {
    grpc.StatusCode.DEADLINE_EXCEEDED: BackendTimeout,
    grpc.StatusCode.INVALID_ARGUMENT: BackendRejectedInput,
    grpc.StatusCode.UNAVAILABLE: BackendLost,
    grpc.StatusCode.NOT_FOUND: BackendUnavailable,
    grpc.StatusCode.INTERNAL: BackendFailed,
    grpc.StatusCode.UNKNOWN: BackendFailed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: BackendRejectedInput,
    grpc.StatusCode.UNIMPLEMENTED: BackendFailed,
}


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("details", ["first line\nsecond line", "", None])
@pytest.mark.parametrize(("code", "kind"), CODES.items())
async def test_every_status_has_its_word_for_a_large_batch_as_for_a_small_one(
    code: grpc.StatusCode, kind: type[BackendError], details: str | None, rows: int
) -> None:
    with pytest.raises(BackendError) as caught:
        await infer(Stub(failure(code, details), max_rows=4), rows, probed=True)
    assert type(caught.value) is kind
    assert "second line" not in caught.value.detail


async def test_more_rows_than_the_server_takes_go_in_parts() -> None:
    stub = Stub(answer(), max_rows=4)
    await infer(stub, 9, probed=True)
    assert [request.inputs[0].shape[0] for request in stub.requests] == [4, 4, 1]


async def test_a_model_that_is_not_ready_is_unavailable() -> None:
    servable = TritonServable(served_by(Stub(answer(), ready=False)), SPEC, ServerVariant("m"))
    with pytest.raises(BackendUnavailable, match="m is not ready"):
        await servable.probe(time.monotonic() + 5, synthetic=False)


@pytest.mark.parametrize("url", ["grpc://host:8001", "grpcs://host:443", "grpc://[::1]:8001"])
def test_addresses_that_can_be_used(url: str) -> None:
    assert TritonOptions(url).url == url


@pytest.mark.parametrize(
    "url",
    ["", "host:8001", "http://host:8001", "grpc://host", "grpc://:8001", "grpc://host:99999", "grpc://host:8001/x"],
)
def test_addresses_that_cannot_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="grpc://host:8001"):
        TritonOptions(url)


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9", BackendUnavailable),
        ("DNS resolution failed for cloud.test:8001", BackendUnavailable),
        ("Request for unknown model: 'm' is not found", BackendUnavailable),
        ("Server is exiting", BackendUnavailable),
        ("Socket closed", BackendLost),
        ("Stream removed", BackendLost),
        ("recvmsg:Connection reset by peer", BackendLost),
    ],
)
async def test_what_no_server_has_begun_is_told_from_what_one_may_have(details: str, kind: type[BackendError]) -> None:
    with pytest.raises(BackendError) as caught:
        await infer(Stub(failure(grpc.StatusCode.UNAVAILABLE, details)))
    assert type(caught.value) is kind


class Away(Stub):
    """A server that nobody reaches any more."""

    async def ModelReady(self, request: Any, timeout: float) -> Any:  # noqa: N802
        raise failure(grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_channel_on_which_nobody_answers_is_replaced() -> None:
    channel = served_by(Away(answer()))
    servable = TritonServable(channel, SPEC, ServerVariant("m"))
    stuck = channel.stub
    for _ in range(RENEW_AFTER):
        assert channel.stub is stuck
        with pytest.raises(BackendTimeout):
            await servable.probe(time.monotonic() + 5, synthetic=False)
    assert channel.stub is not stuck
    await channel.close()


class Nameless(Stub):
    """A server whose name cannot be resolved."""

    async def ModelReady(self, request: Any, timeout: float) -> Any:  # noqa: N802
        raise failure(grpc.StatusCode.UNAVAILABLE, "DNS resolution failed for cloud.test:8001: UNKNOWN")


async def test_a_channel_whose_name_was_not_resolved_is_replaced_at_once() -> None:
    channel = served_by(Nameless(answer()))
    servable = TritonServable(channel, SPEC, ServerVariant("m"))
    stuck = channel.stub
    with pytest.raises(BackendUnavailable):
        await servable.probe(time.monotonic() + 5, synthetic=False)
    assert channel.stub is not stuck
    await channel.close()


class Silent(Stub):
    """A server that takes inferences and does not answer them until it is told to."""

    def __init__(self) -> None:
        super().__init__(answer())
        self.calls: list[asyncio.Future[Any]] = []

    def ModelInfer(self, request: Any, timeout: float) -> asyncio.Future[Any]:  # noqa: N802
        self.calls.append(asyncio.get_running_loop().create_future())
        return self.calls[-1]


async def test_an_inference_that_nobody_waits_for_is_not_cancelled_on_the_server() -> None:
    stub = Silent()
    waiting = asyncio.create_task(infer(stub))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not stub.calls[0].done()
    stub.calls[0].set_result(answer())


async def test_the_deadline_bounds_the_call_and_the_servers_queue() -> None:
    stub = Stub(answer())
    await infer(stub)
    assert 4 < stub.timeouts[0] - ABANDONED_FOR_S <= 5, "seconds; what is abandoned ends by itself, but it ends"
    assert 4_000_000 < stub.requests[0].parameters["timeout"].int64_param <= 5_000_000, "microseconds, as Triton has it"


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    stub = Silent()
    payload = {"x": np.zeros((1, 2), np.float32)}
    servable = TritonServable(served_by(stub), SPEC, ServerVariant("m"))
    with pytest.raises(BackendTimeout):
        await servable.infer(Call(payload, nbytes(payload), 1, "r1", {}), time.monotonic() - 1)
    assert stub.calls == []


async def test_more_rows_than_can_be_sent_in_parts_are_the_callers_to_divide() -> None:
    stub = Stub(answer(), max_rows=4)
    with pytest.raises(BackendRejectedInput, match="too many"):
        await infer(stub, 4 * MAX_BATCHES + 1, probed=True)
    assert stub.requests == []


async def test_the_callers_parameters_reach_the_server() -> None:
    stub = Stub(answer())
    payload = {"x": np.zeros((1, 2), np.float32)}
    call = Call(payload, 8, 1, "r1", {"top_k": 3, "beam": True, "temperature": 0.5, "voice": "low"})
    await TritonServable(served_by(stub), SPEC, ServerVariant("m")).infer(call, time.monotonic() + 5)
    sent = stub.requests[0].parameters
    assert (sent["top_k"].int64_param, sent["beam"].bool_param) == (3, True)
    assert (sent["temperature"].double_param, sent["voice"].string_param) == (0.5, "low")


class Closed(Stub):
    """A channel that was closed: gRPC cancels what is under way on it."""

    def ModelInfer(self, request: Any, timeout: float) -> asyncio.Future[Any]:  # noqa: N802
        call = asyncio.get_running_loop().create_future()
        call.cancel()
        return call

    async def ModelReady(self, request: Any, timeout: float) -> Any:  # noqa: N802
        raise asyncio.CancelledError


async def test_what_was_under_way_on_a_channel_that_closed_is_lost_not_cancelled() -> None:
    with pytest.raises(BackendLost):
        await infer(Closed(answer()))
    servable = TritonServable(served_by(Closed(answer())), SPEC, ServerVariant("m"))
    with pytest.raises(BackendLost):
        await servable.probe(time.monotonic() + 5, synthetic=False)
