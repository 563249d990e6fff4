"""What the gRPC front refuses: with which status, in which words, and at what cost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from app.cloud import TritonProcess
from tests.gateway_process import ROOT, GatewayProcess, policy_text
from tests.integration.scenario import cloud_only, edited, is_up, resident_bytes

NOWHERE = "grpc://127.0.0.1:9"
KEY = "a-key-of-sixteen-or-more"
SERVICE = "/inference.GRPCInferenceService"
UNLIMITED = (("grpc.max_send_message_length", -1),)


def request(model: str = "digits", rows: int = 1, **parameters: str) -> Any:
    """Blank digits."""
    made = service_pb2.ModelInferRequest(model_name=model)
    made.inputs.add(name="pixels", datatype="FP32", shape=[rows, 64])
    made.raw_input_contents.append(np.zeros((rows, 64), np.float32).tobytes())
    for name, value in parameters.items():
        made.parameters[name].string_param = value
    return made


def failure(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The error that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **({"timeout": 20} | options))
    return caught.value


@pytest.fixture
def channel(steady: GatewayProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(steady.grpc, options=UNLIMITED) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def errors(gateway: GatewayProcess, code: str) -> float:
    return gateway.metric("hybrid_router_errors_total", code=code)


def test_a_callers_faults(steady: GatewayProcess, stub: Any) -> None:
    before = errors(steady, "unknown-model")
    error = failure(stub.ModelInfer, request("digit"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "Did you mean 'digits'?" in error.details()
    assert errors(steady, "unknown-model") == before + 1
    bad = request()
    bad.inputs[0].shape[:] = [1 << 20, 1 << 20]
    error = failure(stub.ModelInfer, bad)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "1099511627776 elements; the data has 64" in error.details()
    error = failure(stub.ModelInfer, request(), metadata=[("x-data-class", "phi"), ("x-data-class", "camera")])
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    error = failure(stub.ModelInfer, request(), metadata=[("x-priority", "urgent")])
    assert "priority must be one of low, normal, high" in error.details()


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_a_model_that_is_not_there(stub: Any, method: str) -> None:
    for wrong in ({"name": "digit"}, {"name": "digits", "version": "2"}):
        error = failure(getattr(stub, method), getattr(service_pb2, f"{method}Request")(**wrong))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert wrong["name"] in error.details()


def test_bytes_that_are_no_message(channel: grpc.Channel) -> None:
    for method in ("ModelInfer", "ModelMetadata", "ModelReady"):
        error = failure(channel.unary_unary(f"{SERVICE}/{method}"), b"\xff\xff")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"not a {method}Request" in error.details()


@pytest.mark.parametrize(
    "method",
    [
        *("RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"),
        *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
        *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    ],
)
def test_what_is_not_spoken_is_said_so(stub: Any, method: str) -> None:
    error = failure(getattr(stub, method), getattr(service_pb2, f"{method}Request")())
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details().startswith(f"{method} is not supported")


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large_is_not_read(
    steady: GatewayProcess, stub: Any, compression: grpc.Compression
) -> None:
    before = resident_bytes(steady.process.pid)
    error = failure(stub.ModelInfer, request(rows=800_000), compression=compression)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()
    assert resident_bytes(steady.process.pid) - before < 64 << 20, "200 MB, inflated or not, are not kept"
    stub.ModelInfer(request(rows=4_000), timeout=20, compression=compression)


def test_the_calls_deadline_is_the_requests(steady: GatewayProcess, stub: Any) -> None:
    error = failure(stub.ModelInfer, request(deadline_ms="9"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    soon = request()
    soon.parameters["deadline_ms"].double_param = 0.001
    error = failure(stub.ModelInfer, soon)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert errors(steady, "deadline-exceeded") > 0


def test_a_deadline_reaches_the_cloud(
    start_gateway: Callable[..., GatewayProcess], mortal_triton: TritonProcess
) -> None:
    """The cloud hangs, and the fallback still answers within the deadline of the call."""
    policy = edited(
        policy_text(mortal_triton.grpc_url), lambda it: it["models"]["digits"]["slo"].update(deadline_ms=9000)
    )
    gateway = start_gateway(policy)
    gateway.wait_until(is_up)
    os.kill(mortal_triton.pid, signal.SIGSTOP)
    try:
        with grpc.insecure_channel(gateway.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            answer = stub.ModelInfer(request(), timeout=2)
        assert answer.parameters["backend"].string_param == "edge"
        assert answer.parameters["degraded"].bool_param
    finally:
        os.kill(mortal_triton.pid, signal.SIGCONT)


def test_residency_and_outage(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(cloud_only(policy_text(NOWHERE)))
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        error = failure(stub.ModelInfer, request(data_class="phi"))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        error = failure(stub.ModelInfer, request())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        trailing = dict(error.trailing_metadata())
        assert 1 <= int(trailing["retry-after"]) <= 5
        assert 0 <= int(trailing["grpc-retry-pushback-ms"]) <= 5000
        assert not stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=20).ready
        assert stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=20).live
        assert not stub.ModelReady(service_pb2.ModelReadyRequest(name="digits"), timeout=20).ready


def test_with_a_key_only_health_is_open(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(policy_text(NOWHERE), HYBRID_ROUTER_API_KEY=KEY)
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(request(), metadata=[("authorization", f"Bearer {KEY}")], timeout=20).outputs
        for given in ([], [("authorization", KEY)], [("authorization", f"Bearer {KEY}x")]):
            closed = (f"{SERVICE}/ModelInfer", f"{SERVICE}/ServerMetadata", "/any/other")
            reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            refused = [failure(channel.unary_unary(path), b"", metadata=given) for path in closed]
            for path in (f"{SERVICE}/ModelStreamInfer", reflection):
                stream = channel.stream_stream(path)
                refused.append(failure(lambda it, s=stream, **more: next(s(it, **more)), iter([]), metadata=given))
            for error in refused:
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "Bearer" in error.details()
        assert stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=20).live
        assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=20).ready
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20) == b"\x08\x01"
    assert errors(gateway, "unauthenticated") == 15


@pytest.mark.parametrize("by", ["another server", "another gateway"])
def test_a_taken_port_is_said_in_a_sentence(steady: GatewayProcess, tmp_path: Path, by: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if by == "another server" else int(steady.grpc.rpartition(":")[2])
        ended = subprocess.run(
            [sys.executable, "-m", "app", "serve", "--port", "0", "--grpc-port", str(port)],
            cwd=ROOT,
            env=os.environ | {"HYBRID_ROUTER_STATE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"Error: gRPC cannot listen on 127.0.0.1:{port}: Address already in use. Name another port with "
        "HYBRID_ROUTER_GRPC_PORT (0 takes a free one), or turn gRPC off with the word off.\n"
    )


def test_it_can_be_turned_off(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(policy_text(NOWHERE), HYBRID_ROUTER_GRPC_PORT="off")
    assert gateway.grpc == ""
    assert gateway.http.get("/healthz").status_code == 200
