"""What the way through the gateway costs a call on Triton: `python -m tests.perf.through_triton`.

The same process makes the same load on the same Triton, in turn: directly, with tritonclient.grpc.aio over one channel,
and through a gateway in a process of its own, as JSON over HTTP. One call in flight says what a call takes longer, 64
in flight how many calls go through. All on one machine: load, gateway and Triton share its cores.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import numpy as np
import tritonclient.grpc.aio as triton_grpc
import uvloop

from app.cloud import CloudPorts, TritonProcess
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import cloud_only
from tests.perf.keep_alive import connect, post

PIXELS = [round(0.015 * column, 3) for column in range(64)]
REQUEST = post("/infer", json.dumps({"model": "digits", "inputs": {"pixels": [PIXELS]}}))
MANY = 64

Ask = Callable[[], Awaitable[object]]


async def load(askers: list[Ask], seconds: float) -> tuple[float, float, float]:
    """Has each of them ask again and again. Returns seconds at P50 and at P99, and calls per second."""
    took: list[float] = []
    started = time.perf_counter()

    async def go_on(ask: Ask) -> None:
        while (began := time.perf_counter()) < started + seconds:
            await ask()
            took.append(time.perf_counter() - began)

    await asyncio.gather(*map(go_on, askers))
    elapsed = time.perf_counter() - started
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100], len(took) / elapsed


async def directly(address: str, in_flight: int, seconds: float) -> tuple[float, float, float]:
    """Calls over one channel of Triton's own client."""
    async with triton_grpc.InferenceServerClient(address) as client:
        pixels = triton_grpc.InferInput("pixels", [1, 64], "FP32")
        pixels.set_data_from_numpy(np.array([PIXELS], np.float32))
        outputs = [triton_grpc.InferRequestedOutput(name) for name in ("label", "probabilities")]

        async def ask() -> None:
            await client.infer("digits", [pixels], outputs=outputs)

        await load([ask] * in_flight, 0.5)
        return await load([ask] * in_flight, seconds)


async def through_gateway(url: str, in_flight: int, seconds: float) -> tuple[float, float, float]:
    """Calls over as many connections as there are calls in flight."""
    connections = [await connect(url) for _ in range(in_flight)]
    askers: list[Ask] = [lambda connection=connection: connection.ask(REQUEST) for connection in connections]  # type: ignore[misc]
    try:
        await load(askers, 0.5)
        return await load(askers, seconds)
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
                measured: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
                for _ in range(rounds):
                    direct = uvloop.run(directly(address, in_flight, seconds))
                    measured.append((direct, uvloop.run(through_gateway(gateway.url, in_flight, seconds))))
                _report(in_flight, *zip(*measured, strict=True))


def _report(in_flight: int, direct: tuple[tuple[float, ...], ...], through: tuple[tuple[float, ...], ...]) -> None:
    medians = [[statistics.median(column) for column in zip(*rows, strict=True)] for rows in (direct, through)]
    click.echo(f"\n{in_flight} in flight\n\n| way | P50 | P99 | calls/s |\n|---|---|---|---|")
    for name, (p50, p99, rate) in zip(("direct, gRPC", "through the gateway, JSON"), medians, strict=True):
        click.echo(f"| {name} | {p50 * 1e3:.2f} ms | {p99 * 1e3:.2f} ms | {rate:,.0f} |")
    (direct_p50, _, direct_rate), (through_p50, _, through_rate) = medians
    click.echo(
        f"| difference, ratio | {(through_p50 - direct_p50) * 1e3:+.2f} ms |  | {through_rate / direct_rate:.2f} |"
    )


if __name__ == "__main__":
    main()
