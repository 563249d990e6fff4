"""A thousand malformed calls against one gateway: each is the caller's fault, and nothing of them is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from app.cloud import TritonProcess
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import is_up, resident_bytes
from tests.unit.app.codec.test_oip_grpc import requests

SERVICE = "/inference.GRPCInferenceService"
CALLERS_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # where the deadline that was made up is a near one
}
GROWTH_BYTES = 64 << 20
METHODS = [method.name for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
METHODS.remove("ModelStreamInfer")

A_PART = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def good() -> Any:
    made = service_pb2.ModelInferRequest(model_name="digits")
    made.inputs.add(name="pixels", datatype="FP32", shape=[1, 64])
    made.raw_input_contents.append(np.zeros((1, 64), np.float32).tobytes())
    made.parameters["data_class"].string_param = "phi"
    return made


@pytest.fixture(scope="module")
def victim(triton: TritonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The one gateway that gets it all; in the end it is as good as new."""
    file = tmp_path_factory.mktemp("garbage") / "policy.yaml"
    file.write_text(policy_text(triton.grpc_url))
    with GatewayProcess(file, {}) as gateway:
        gateway.wait_until(is_up)
        with grpc.insecure_channel(gateway.grpc) as channel:
            ask(channel, "ModelInfer", good().SerializeToString())
        before = resident_bytes(gateway.process.pid)
        yield gateway
        assert resident_bytes(gateway.process.pid) - before < GROWTH_BYTES
        with grpc.insecure_channel(gateway.grpc) as channel:
            assert ask(channel, "ModelInfer", good().SerializeToString()) is None
        assert "Traceback" not in gateway.log()


@pytest.fixture(scope="module")
def channel(victim: GatewayProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(victim.grpc) as opened:
        yield opened


def ask(channel: grpc.Channel, method: str, body: bytes) -> grpc.StatusCode | None:
    """The status of the error that these bytes are answered with, or None; one without a sentence counts as unknown."""
    try:
        channel.unary_unary(f"{SERVICE}/{method}")(body, timeout=20)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code if error.details() else grpc.StatusCode.UNKNOWN
    return None


def spoilt(body: bytes, cuts: list[tuple[int, bytes]]) -> bytes:
    """The bytes with pieces of them overwritten."""
    content = bytearray(body)
    for at, piece in cuts:
        content[at % len(content) : at % len(content) + len(piece)] = piece
    return bytes(content)


@A_PART
@given(st.sampled_from(METHODS), st.binary(max_size=300))
def test_any_bytes_to_any_method(channel: grpc.Channel, method: str, body: bytes) -> None:
    assert ask(channel, method, body) in {*CALLERS_FAULT, None}


@A_PART
@given(st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=3)), max_size=4))
def test_a_good_request_with_wrong_bytes(channel: grpc.Channel, cuts: list[tuple[int, bytes]]) -> None:
    assert ask(channel, "ModelInfer", spoilt(good().SerializeToString(), cuts)) in {*CALLERS_FAULT, None}


@A_PART
@given(requests)
@example(service_pb2.ModelInferRequest(model_name="nul\0in it \U0001f600"))
@example(service_pb2.ModelInferRequest(model_name="long" * 100_000))
def test_any_request(channel: grpc.Channel, request: Any) -> None:
    assert ask(channel, "ModelInfer", request.SerializeToString()) in {*CALLERS_FAULT, None}


@A_PART
@given(st.lists(st.binary(max_size=60) | st.builds(lambda it: it.SerializeToString(), requests), max_size=8))
def test_a_stream_of_anything(channel: grpc.Channel, bodies: list[bytes]) -> None:
    """Whatever is sent is answered, each by one message."""
    answers = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter(bodies), timeout=20)
    errors = [service_pb2.ModelStreamInferResponse.FromString(answer).error_message for answer in answers]
    assert len(errors) == len(bodies)
    assert not any("unexpected" in error for error in errors)


@A_PART
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["x-data-class", "x-deadline-ms", "x-priority", "x-request-id", "x-data-class-bin"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
        ),
        max_size=3,
    )
)
def test_any_metadata(channel: grpc.Channel, metadata: list[tuple[str, str]]) -> None:
    given = [(key, value.encode() if key.endswith("-bin") else value) for key, value in metadata]
    call = channel.unary_unary(f"{SERVICE}/ModelInfer")
    try:
        call(good().SerializeToString(), metadata=given, timeout=20)
    except grpc.RpcError as error:
        code = error.code()
    else:
        code = None
    assert code in {*CALLERS_FAULT, None}


def test_a_claimed_terabyte_costs_nothing(victim: GatewayProcess, channel: grpc.Channel) -> None:
    before = resident_bytes(victim.process.pid)
    request = good()
    for shape in ([1 << 40], [1 << 20, 1 << 20], [2**31] * 16, [1] * 100_000):
        request.inputs[0].shape[:] = shape
        assert ask(channel, "ModelInfer", request.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT
    assert resident_bytes(victim.process.pid) - before < 16 << 20
