"""What the way through the gateway costs a call on Triton: `python -m tests.perf.through_triton`.

The same process makes the same load on the same Triton, in turn: directly, with tritonclient.grpc.aio over one channel;
directly, over one of the gateway's own channels; and through a gateway in a process of its own, as JSON over HTTP. One
call in flight says what a call takes longer, 64 in flight how many calls go through. Beside it the processor time of
the process under test for each call: the client's own, or the gateway's. All on one machine: load, gateway and Triton
share its cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import tritonclient.grpc.aio as triton_grpc
import uvloop
from tritonclient.grpc import service_pb2

from app.cloud import CloudPorts, TritonProcess
from backends.grpc_channel import GrpcChannel
from backends.triton import SERVICE
from backends.triton_messages import infer_request
from router.ports import Call
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import cloud_only
from tests.perf.keep_alive import connect, post
from tests.perf.process import cpu_s

PIXELS = [round(0.015 * column, 3) for column in range(64)]
REQUEST = post("/infer", json.dumps({"model": "digits", "inputs": {"pixels": [PIXELS]}}))
MANY = 64
WARM_S = 0.5

Ask = Callable[[], Awaitable[object]]


class Measured(NamedTuple):
    """Seconds at P50 and at P99, calls per second, and processor seconds per call of the process under test."""

    p50_s: float
    p99_s: float
    rate: float
    cpu_s: float


async def load(askers: Sequence[Ask], seconds: float, pid: int) -> Measured:
    """Has each of them ask again and again."""
    took: list[float] = []
    used, started = cpu_s(pid), time.perf_counter()

    async def go_on(ask: Ask) -> None:
        while (began := time.perf_counter()) < started + seconds:
            await ask()
            took.append(time.perf_counter() - began)

    await asyncio.gather(*map(go_on, askers))
    elapsed, used = time.perf_counter() - started, cpu_s(pid) - used
    took.sort()
    return Measured(took[len(took) // 2], took[len(took) * 99 // 100], len(took) / elapsed, used / len(took))


async def directly(address: str, in_flight: int, seconds: float) -> Measured:
    """Calls over one channel of Triton's own client."""
    async with triton_grpc.InferenceServerClient(address) as client:
        pixels = triton_grpc.InferInput("pixels", [1, 64], "FP32")
        pixels.set_data_from_numpy(np.array([PIXELS], np.float32))
        outputs = [triton_grpc.InferRequestedOutput(name) for name in ("label", "probabilities")]

        async def ask() -> None:
            await client.infer("digits", [pixels], outputs=outputs)

        await load([ask] * in_flight, WARM_S, os.getpid())
        return await load([ask] * in_flight, seconds, os.getpid())


async def over_our_channel(address: str, in_flight: int, seconds: float) -> Measured:
    """The same calls over one channel of the gateway's."""
    channel = GrpcChannel(f"grpc://{address}", SERVICE)
    call = Call({"pixels": np.array([PIXELS], np.float32)}, 256, 1, "", {})

    async def ask() -> None:
        request = infer_request(call, "digits", "", {"pixels": np.array([PIXELS], np.float32)}, 5.0)
        deadline = time.monotonic() + 5.0
        content = await channel.ask_to_the_end("ModelInfer", request.SerializeToString(), deadline, None)
        service_pb2.ModelInferResponse.FromString(content)

    try:
        await load([ask] * in_flight, WARM_S, os.getpid())
        return await load([ask] * in_flight, seconds, os.getpid())
    finally:
        await channel.close()


async def through_gateway(url: str, pid: int, in_flight: int, seconds: float) -> Measured:
    """Calls over as many connections as there are calls in flight."""
    connections = [await connect(url) for _ in range(in_flight)]
    askers: list[Ask] = [lambda connection=connection: connection.ask(REQUEST) for connection in connections]  # type: ignore[misc]
    try:
        await load(askers, WARM_S, pid)
        return await load(askers, seconds, pid)
    finally:
        for connection in connections:
            connection.close()


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each is measured.")
@click.option("--seconds", default=3.0, show_default=True, help="How long each measurement takes.")
def main(rounds: int, seconds: float) -> None:
    """Measure calls on Triton, directly and through the gateway, in turn."""
    with TritonProcess(CloudPorts(0, 0, 0)) as triton, tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(cloud_only(policy_text(triton.grpc_url)))
        with GatewayProcess(policy, {}) as gateway:
            gateway.wait_until(lambda g: g.http.get("/readyz").status_code == 200)
            address = triton.grpc_url.removeprefix("grpc://")
            for in_flight in (1, MANY):
                measured = [
                    (
                        uvloop.run(directly(address, in_flight, seconds)),
                        uvloop.run(over_our_channel(address, in_flight, seconds)),
                        uvloop.run(through_gateway(gateway.url, gateway.process.pid, in_flight, seconds)),
                    )
                    for _ in range(rounds)
                ]
                _report(in_flight, measured)


def _report(in_flight: int, measured: Sequence[tuple[Measured, ...]]) -> None:
    ways = "direct, tritonclient.grpc.aio", "direct, the gateway's channel", "through the gateway, JSON"
    medians = [Measured(*map(statistics.median, zip(*rows, strict=True))) for rows in zip(*measured, strict=True)]
    direct = medians[0]
    click.echo(f"\n{in_flight} in flight\n\n| way | P50 | to direct | P99 | calls/s | to direct | CPU/call |")
    click.echo("|---|---|---|---|---|---|---|")
    for way, one in zip(ways, medians, strict=True):
        later_ms = (one.p50_s - direct.p50_s) * 1e3
        click.echo(
            f"| {way} | {one.p50_s * 1e3:.2f} ms | {later_ms:+.2f} ms | {one.p99_s * 1e3:.2f} ms "
            f"| {one.rate:,.0f} | {one.rate / direct.rate:.2f} | {one.cpu_s * 1e6:.0f} µs |"
        )


if __name__ == "__main__":
    main()
