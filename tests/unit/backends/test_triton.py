"""The Triton servable over a stand-in for its channel: servers that answer what no Triton should."""

from __future__ import annotations

import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from backends.grpc_call import RpcError
from backends.grpc_channel import GrpcChannel
from backends.server import MAX_BATCHES, ServerVariant
from backends.triton import TritonOptions, TritonServable
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
    """A channel to a server that answers every inference with the same, and has a maximum batch size.

    Attributes:
        requests: What it was asked for.
        deadlines: By when.
        asked: How often for anything else.
        connection: What its next call goes over.
    """

    connection: Any = None

    def __init__(self, response: Any, max_rows: int = 0, ready: bool = True) -> None:
        self.response = response
        self.ready = ready
        self.requests: list[Any] = []
        self.deadlines: list[float] = []
        self.asked: Counter[str] = Counter()
        config = service_pb2.ModelConfigResponse()
        config.config.max_batch_size = max_rows
        self.says: dict[str, Any] = {
            "ModelReady": service_pb2.ModelReadyResponse(ready=ready),
            "ModelStatistics": service_pb2.ModelStatisticsResponse(),
            "ModelConfig": config,
        }

    async def ask(self, method: str, message: bytes, deadline: float) -> bytes:
        self.asked[method] += 1
        said = self.says[method]
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, bytes) else bytes(said.SerializeToString())

    async def ask_to_the_end(self, method: str, message: bytes, deadline: float, late: object) -> bytes:
        assert method == "ModelInfer"
        self.requests.append(service_pb2.ModelInferRequest.FromString(message))
        self.deadlines.append(deadline)
        if isinstance(self.response, Exception):
            raise self.response
        return self.response if isinstance(self.response, bytes) else bytes(self.response.SerializeToString())


def failure(code: grpc.StatusCode, detail: str = "the details") -> RpcError:
    return RpcError(code, detail)


def served_by(stub: Stub) -> GrpcChannel:
    """The stand-in, for a servable."""
    return cast(GrpcChannel, stub)


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
@pytest.mark.parametrize("details", ["first line\nsecond line", ""])
@pytest.mark.parametrize(("code", "kind"), CODES.items())
async def test_every_status_has_its_word_for_a_large_batch_as_for_a_small_one(
    code: grpc.StatusCode, kind: type[BackendError], details: str, rows: int
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


@pytest.mark.parametrize(
    ("server", "survives"),
    [
        (service_pb2.ServerMetadataResponse(name="triton", version="2.51.0"), False),
        (service_pb2.ServerMetadataResponse(name="triton", version="2.58.0"), False),
        (service_pb2.ServerMetadataResponse(name="triton", version="2.59.0"), True),
        (service_pb2.ServerMetadataResponse(name="triton", version="2.60.1dev"), True),
        (service_pb2.ServerMetadataResponse(name="triton", version="3.0"), True),
        (service_pb2.ServerMetadataResponse(name="triton", version="main"), False),
        (service_pb2.ServerMetadataResponse(name="triton"), False),
        (service_pb2.ServerMetadataResponse(name="mlserver", version="1.7.1"), True),
        (failure(grpc.StatusCode.UNIMPLEMENTED), False),
        (b"\xff", False),
    ],
)
async def test_it_is_asked_once_over_each_connection_whether_its_calls_may_be_cancelled(
    server: Any, survives: bool
) -> None:
    stub = Stub(answer())
    stub.says["ServerMetadata"] = server
    servable = TritonServable(served_by(stub), SPEC, ServerVariant("m"))
    await servable.probe(time.monotonic() + 5, synthetic=False)
    assert stub.asked["ServerMetadata"] == 0, "there is no connection yet"
    for turn in (1, 2):
        stub.connection = SimpleNamespace(survives_cancelling=None)
        for number in range(3):
            await servable.probe(time.monotonic() + 5, synthetic=turn == 2 and number == 0)
            assert stub.connection.survives_cancelling is not None
        assert stub.connection.survives_cancelling is survives
        assert stub.asked["ServerMetadata"] == turn


async def test_what_a_server_says_of_itself_counts_for_no_other_connection() -> None:
    class Replaced(Stub):
        async def ask(self, method: str, message: bytes, deadline: float) -> bytes:
            if method == "ServerMetadata":
                self.connection = SimpleNamespace(survives_cancelling=None)
            return await super().ask(method, message, deadline)

    stub = Replaced(answer())
    stub.says["ServerMetadata"] = service_pb2.ServerMetadataResponse(name="triton", version="2.59.0")
    first = stub.connection = SimpleNamespace(survives_cancelling=None)
    await TritonServable(served_by(stub), SPEC, ServerVariant("m")).probe(time.monotonic() + 5, synthetic=False)
    assert first is not stub.connection
    assert (first.survives_cancelling, stub.connection.survives_cancelling) == (None, None)


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
        ("Request for unknown model: 'm' is not found", BackendUnavailable),
        ("Server is exiting", BackendUnavailable),
        ("Socket closed", BackendLost),
    ],
)
async def test_what_no_server_has_begun_is_told_from_what_one_may_have(details: str, kind: type[BackendError]) -> None:
    with pytest.raises(BackendError) as caught:
        await infer(Stub(failure(grpc.StatusCode.UNAVAILABLE, details)))
    assert type(caught.value) is kind


async def test_the_deadline_bounds_the_call_and_the_servers_queue() -> None:
    stub = Stub(answer())
    await infer(stub)
    assert 4 < stub.deadlines[0] - time.monotonic() <= 5
    assert 4_000_000 < stub.requests[0].parameters["timeout"].int64_param <= 5_000_000, "microseconds, as Triton has it"


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


@pytest.mark.parametrize("content", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f"])
async def test_what_is_no_message_of_the_protocol_is_a_failure(content: bytes) -> None:
    with pytest.raises(BackendFailed, match="message of its protocol"):
        await infer(Stub(content))
    stub = Stub(answer())
    stub.says["ModelReady"] = content
    with pytest.raises(BackendFailed, match="message of its protocol"):
        await TritonServable(served_by(stub), SPEC, ServerVariant("m")).probe(time.monotonic() + 5, synthetic=False)
