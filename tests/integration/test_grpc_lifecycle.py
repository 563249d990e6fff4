"""How calls and the gRPC front end: hang-ups, SIGTERM, what health says meanwhile; and what reflection lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import BLANK, edited, eventually, is_up, open_files, target
from tests.integration.slow_cloud import SlowCloud

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LONG_S = 20


def request(id: str = "", data_class: str = "unclassified") -> Any:
    made = service_pb2.ModelInferRequest(model_name="digits", id=id)
    made.inputs.add(name="pixels", datatype="FP32", shape=[1, 64])
    made.raw_input_contents.append(np.zeros((1, 64), np.float32).tobytes())
    made.parameters["data_class"].string_param = data_class
    return made


async def requests(count: int, then_wait: bool) -> AsyncIterator[Any]:
    """So many requests; then the end, or nothing more while the client waits."""
    for number in range(count):
        yield request(str(number))
    if then_wait:
        await asyncio.sleep(LONG_S)


def patient(policy: dict[str, Any]) -> None:
    """Has requests wait for the cloud for as long as a test may take."""
    policy["models"]["digits"]["slo"]["deadline_ms"] = 1000 * LONG_S


@pytest.fixture
async def cloud() -> AsyncIterator[SlowCloud]:
    """A cloud that the test lets answer, or not."""
    async with SlowCloud() as running:
        yield running


@pytest.fixture
async def gateway(start_gateway: Callable[..., GatewayProcess], cloud: SlowCloud) -> GatewayProcess:
    """A gateway that waits long for this cloud."""
    return await started(start_gateway, edited(policy_text(cloud.url), patient))


async def started(start: Callable[..., GatewayProcess], policy: str, **environment: str) -> GatewayProcess:
    """A gateway whose cloud is up; this loop has to run meanwhile, for it is the cloud's."""
    running = await asyncio.to_thread(start, policy, **environment)
    await soon(lambda: is_up(running), "the cloud is up")
    return running


def hung_up(gateway: GatewayProcess) -> float:
    return gateway.metric("hybrid_router_requests_total", outcome="hung-up")


def answered_by(gateway: GatewayProcess, backend: str) -> float:
    return gateway.metric("hybrid_router_requests_total", backend=backend, outcome="ok")


async def soon(is_so: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(eventually, is_so, what)


@pytest.mark.parametrize("closes", [False, True])
async def test_a_client_that_hangs_up_frees_everything(gateway: GatewayProcess, cloud: SlowCloud, closes: bool) -> None:
    """Whether it cancels its calls, or its connection goes."""
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:  # a first client, for what is opened once
        assert (await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request())).outputs
        files = open_files(gateway.process.pid)
    cloud.quick.clear()
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer(request())
        stream = stub.ModelStreamInfer(requests(3, then_wait=True))
        answer = asyncio.ensure_future(stream.read())
        await cloud.wait_asked(4)
        if not closes:
            call.cancel()
            stream.cancel()
            await soon(lambda: hung_up(gateway) == 4, "all four are given up")
    await soon(lambda: hung_up(gateway) == 4, "all four are given up")
    answer.cancel()
    await soon(lambda: target(gateway, "digits", "cloud")["in_flight"] == 0, "nobody waits for the cloud")
    await soon(lambda: open_files(gateway.process.pid) <= files, "no descriptor is left")
    assert "Traceback" not in gateway.log()


@pytest.mark.parametrize(("version", "cancelled"), [("2.51.0", 0), ("2.59.0", 2)])
async def test_a_cancellation_reaches_a_server_that_survives_it(
    start_gateway: Callable[..., GatewayProcess], version: str, cancelled: int
) -> None:
    """Whether the client of the gateway speaks gRPC or HTTP."""
    async with SlowCloud(version) as cloud:
        gateway = await started(start_gateway, edited(policy_text(cloud.url), patient))
        cloud.quick.clear()
        async with grpc.aio.insecure_channel(gateway.grpc) as channel, httpx.AsyncClient() as client:
            call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request())
            body = {"model": "digits", "inputs": {"pixels": BLANK}}
            posted = asyncio.create_task(client.post(f"{gateway.url}/infer", json=body, timeout=LONG_S))
            await cloud.wait_asked(2)
            call.cancel()
            posted.cancel()
            await soon(lambda: hung_up(gateway) == 2, "both are given up")
            for _ in range(3):  # the cloud hears of a cancellation before it answers what was asked later
                await soon(lambda: is_up(gateway), "the cloud answers")
                await asyncio.sleep(0.3)
            assert cloud.cancelled == cancelled


async def test_the_requests_of_a_stream_run_side_by_side_and_are_answered_in_order(
    gateway: GatewayProcess, cloud: SlowCloud
) -> None:
    cloud.quick.clear()
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stream = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
        await stream.write(request("slow"))
        await cloud.wait_asked(1)
        await stream.write(request("quick", data_class="phi"))
        await soon(lambda: answered_by(gateway, "edge") == 1, "the second one is done")
        cloud.quick.set()
        assert (await stream.read()).infer_response.id == "slow"
        assert (await stream.read()).infer_response.id == "quick"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_a_client_that_does_not_read_is_held_up(gateway: GatewayProcess) -> None:
    """It sends and sends; flow control stops it, nothing piles up, and others are served meanwhile."""
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer()
        sent = 0
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(1):
                    await stream.write(request(str(sent), data_class="phi"))
                sent += 1
        assert 0 < answered_by(gateway, "edge") < sent
        assert (await stub.ModelInfer(request(data_class="phi"), timeout=LONG_S)).outputs
        stream.cancel()
    assert "Traceback" not in gateway.log()


async def test_sigterm_lets_requests_end_and_streams_go(gateway: GatewayProcess, cloud: SlowCloud) -> None:
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == SERVING
        idle = stub.ModelStreamInfer(requests(1, then_wait=True))
        assert (await idle.read()).infer_response.id == "0"
        cloud.quick.clear()
        slow = stub.ModelInfer(request("slow"))
        streamed = stub.ModelStreamInfer(requests(2, then_wait=True))
        first = asyncio.ensure_future(streamed.read())
        await cloud.wait_asked(3)
        gateway.process.terminate()
        assert (await watching.read()).status == NOT_SERVING
        assert not (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await idle.read()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "about to stop" in ended.value.details()
        assert await watching.read() is grpc.aio.EOF
        cloud.quick.set()
        assert (await slow).parameters["backend"].string_param == "cloud"
        assert (await first).infer_response.id == "0"
        assert (await streamed.read()).infer_response.id == "1"
        with pytest.raises(grpc.aio.AioRpcError, match="about to stop"):
            await streamed.read()
    assert await asyncio.to_thread(gateway.process.wait, 10) == 0
    assert "Traceback" not in gateway.log()


async def test_the_drain_has_a_limit(start_gateway: Callable[..., GatewayProcess], cloud: SlowCloud) -> None:
    policy = edited(policy_text(cloud.url), patient)
    gateway = await started(start_gateway, policy, HYBRID_ROUTER_DRAIN_TIMEOUT_S="1", HYBRID_ROUTER_DRAIN_NOTICE_S="0")
    cloud.quick.clear()
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request())
        await cloud.wait_asked(1)
        gateway.process.terminate()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await asyncio.to_thread(gateway.process.wait, 10) == 0


async def test_health_is_that_of_readiness(steady: GatewayProcess) -> None:
    async with grpc.aio.insecure_channel(steady.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
        unknown = health_pb2.HealthCheckRequest(service="none")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health.Check(unknown)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert (await health.Watch(unknown).read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert "Traceback" not in steady.log()


async def test_health_follows_the_policy_file(start_gateway: Callable[..., GatewayProcess]) -> None:
    policy = policy_text("grpc://127.0.0.1:9")
    gateway = start_gateway(policy)
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == SERVING
        without = edited(policy, lambda it: [model["variants"].pop("edge") for model in it["models"].values()])
        gateway.policy.write_text(without)
        assert (await watching.read()).status == NOT_SERVING
        gateway.policy.write_text(policy)
        assert (await watching.read()).status == SERVING


def test_reflection_lists_the_services_and_their_messages(steady: GatewayProcess) -> None:
    with grpc.insecure_channel(steady.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        assert services == {
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        for service in services:
            assert database.FindFileContainingSymbol(service).service
        config = database.FindFileContainingSymbol("inference.ModelConfig")
        assert "ModelConfig" in {message.name for message in config.message_type}
