"""The steps by which a HAT is accepted. They use what the gateway uses, and raise what they have to say.

Each returns a sentence and figures, or raises `Skipped`, `Absent`, `Failed`, or whatever HailoRT or the backend raises.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from app.device_bench import Absent, Bench, Done, Failed, Skipped
from backends.hailo import HailoBackend, HailoOptions, HailoServable, HailoVariant
from backends.hailo_device import SDK, hat_health, load_sdk, status_name
from backends.hailo_errors import NO_HAT, translated
from backends.hailo_model import streams_of
from backends.hailo_streams import Stream
from router.errors import BackendUnavailable
from router.model import ModelSpec, Tensors, TensorSpec
from router.ports import BackendContext, Call, synthetic_call
from router.types import nbytes

CALL_S = 10.0
"""A call that takes longer counts as failed."""

LATENCY_RUNS = 200
FULL_QUEUE_CALLS = 32
THROUGHPUT_S = 5.0
SLOWER = 1.3
"""Throughput at the end of the hot run may be so many times less than at its start."""

HOLD = "from backends.hailo_device import DEVICE; DEVICE.lease(); print('held')"


async def find_hailort(bench: Bench) -> Done:
    """HailoRT's Python package is there, and whole."""
    try:
        bench.sdk = await asyncio.to_thread(load_sdk)
    except BackendUnavailable as error:
        if find_spec(SDK) is None:
            raise Absent(error.detail) from error
        raise
    version = str(getattr(bench.sdk, "__version__", "of unknown version"))
    return f"HailoRT {version}, numpy {np.__version__}", {"hailort": version, "numpy": np.__version__}


async def identify(bench: Bench) -> Done:
    """A HAT is on the bus, and says what it is."""

    def ask() -> Any:
        if not bench.sdk.Device.scan():
            return None
        with bench.sdk.Device() as device:
            return device.control.identify()

    try:
        bench.identity = found = await asyncio.to_thread(ask)
    except Exception as error:
        raise translated(error, "Identifying the HAT", status_name(bench.sdk)) from error
    if found is None:
        raise Absent(NO_HAT)
    chip = str(found.device_architecture)
    return f"{chip}, {str(found.product_name).strip()}", {"chip": chip, "serial_number": str(found.serial_number)}


async def firmware(bench: Bench) -> Done:
    """What runs on it."""
    if bench.identity is None:
        raise Skipped("the HAT did not say what it is")
    version = str(bench.identity.firmware_version)
    return version, {"firmware": version}


async def temperature(bench: Bench) -> Done:
    """It tells its temperature, and does not slow itself down."""
    health = await asyncio.to_thread(hat_health)
    if health is None or health.temperature_c is None:
        raise Skipped("this board does not tell it")
    if health.throttled:
        raise Failed(f"{health.temperature_c:.1f} °C, and the chip slows itself down already: cool it")
    return f"{health.temperature_c:.1f} °C", {"temperature_c": health.temperature_c}


async def power(bench: Bench) -> Done:
    """It tells what it draws."""
    health = await asyncio.to_thread(hat_health)
    if health is None or health.power_w is None:
        raise Skipped("this board does not measure it")
    return f"{health.power_w:.2f} W", {"power_w": health.power_w}


async def configure(bench: Bench) -> Done:
    """The .hef goes on the chip."""
    hef = bench.request.hef
    if hef is None:
        raise Skipped("give a compiled model with --hef")
    inputs, outputs = await asyncio.to_thread(streams_of, hef)
    model = ModelSpec(hef.stem, "1", _specs(inputs), _specs(outputs))
    backend = HailoBackend(HailoOptions(), BackendContext(hef.absolute().parent))
    bench.held.append(backend.close)
    started = time.monotonic()
    bench.servable = await backend.load(hef.absolute(), model, HailoVariant(hef.name), golden=None)
    bench.held.append(bench.servable.close)
    bench.model = model
    seconds = time.monotonic() - started
    shapes = ", ".join(f"{stream.name} {list(stream.shape)}" for stream in (*inputs, *outputs))
    return f"in {seconds * 1000:.0f} ms: {shapes}", {"configure_ms": seconds * 1000}


def _specs(streams: list[Stream]) -> dict[str, TensorSpec]:
    return {stream.name: TensorSpec("float32", (-1, *stream.shape)) for stream in streams}


async def infer_once(bench: Bench) -> Done:
    """One inference on zeros ends in numbers."""
    servable, model = bench.opened()
    reply = await servable.infer(synthetic_call(model), _soon())
    for name, tensor in reply.outputs.items():
        if not np.isfinite(tensor).all():
            raise Failed(f"{name} holds what is no number")
    return f"{reply.compute_s * 1000:.2f} ms on the HAT", {"compute_ms": reply.compute_s * 1000}


async def latency(bench: Bench) -> Done:
    """One caller after the other."""
    servable, model = bench.opened()
    call, took = synthetic_call(model), []
    for _ in range(LATENCY_RUNS):
        started = time.monotonic()
        await servable.infer(call, _soon())
        took.append((time.monotonic() - started) * 1000)
    p50, p95, p99 = (float(value) for value in np.percentile(took, (50, 95, 99)))
    figures = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "runs": LATENCY_RUNS}
    return f"P50 {p50:.2f}, P95 {p95:.2f}, P99 {p99:.2f} ms of {LATENCY_RUNS}", figures


async def throughput(bench: Bench) -> Done:
    """More callers than the queue has places."""
    servable, model = bench.opened()
    done = await _under_load(servable, model, THROUGHPUT_S, FULL_QUEUE_CALLS)
    rate = len(done) / THROUGHPUT_S
    return f"{rate:.0f} a second with {FULL_QUEUE_CALLS} callers", {"per_second": rate, "callers": FULL_QUEUE_CALLS}


async def accuracy(bench: Bench) -> Done:
    """The answers to golden inputs are the golden ones, within a tolerance."""
    servable, model = bench.opened()
    if bench.request.golden is None:
        raise Skipped("give inputs and their right answers with --golden")
    with np.load(bench.request.golden) as file:
        missing = [f"in.{n}" for n in model.inputs if f"in.{n}" not in file]
        missing += [f"out.{n}" for n in model.outputs if f"out.{n}" not in file]
        if missing:
            raise Failed(f"the golden file lacks {', '.join(missing)}; it has {', '.join(file.files)}")
        inputs = {n: np.ascontiguousarray(file[f"in.{n}"], np.float32) for n in model.inputs}
        wanted = {n: np.asarray(file[f"out.{n}"], np.float64) for n in model.outputs}
    reply = await servable.infer(_call(inputs), time.monotonic() + 60)
    worst, same = 0.0, 1.0
    for name, right in wanted.items():
        answer = reply.outputs[name].reshape(len(right), -1)
        right = right.reshape(len(right), -1)
        worst = max(worst, float(np.abs(answer - right).max() / (np.ptp(right) or 1.0)))
        if right.shape[1] > 1:
            same = min(same, float((answer.argmax(axis=1) == right.argmax(axis=1)).mean()))
    said = f"off by {worst:.2%} of the range at most, the greatest output agrees in {same:.1%} of the rows"
    if worst > bench.request.tolerance:
        raise Failed(f"{said}; {bench.request.tolerance:.2%} is allowed")
    return said, {"worst_share_of_range": worst, "same_greatest": same}


async def busy(bench: Bench) -> Done:
    """A second process is refused as long as this one holds the HAT, in a sentence."""
    bench.opened()
    other = [sys.executable, "-c", HOLD]
    root = Path(__file__).parents[1]
    ended = await asyncio.to_thread(
        subprocess.run, other, cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    if ended.returncode == 0:
        raise Failed("a second process got the HAT while this one held it: two gateways would disturb each other")
    said = ended.stderr.strip().splitlines()[-1] if ended.stderr.strip() else "nothing"
    if "Another process holds the HAT" not in said:
        raise Failed(f"a second process was refused, but for another reason: {said}")
    await infer_once(bench)
    return "a second process is refused in a sentence, and this one goes on", {}


async def hot_run(bench: Bench) -> Done:
    """Full load for a while: the chip neither slows itself down nor loses much of its speed."""
    servable, model = bench.opened()
    seconds = bench.request.hot_s
    if seconds == 0:
        raise Skipped("left out with --seconds 0")
    hottest: list[float] = []
    throttled = False
    async with _watched(hottest) as noticed:
        done = await _under_load(servable, model, seconds, FULL_QUEUE_CALLS)
        throttled = bool(noticed)
    part = max(1.0, seconds / 6)
    first = sum(1 for at in done if at <= part)
    last = sum(1 for at in done if at > seconds - part)
    peak = max(hottest, default=float("nan"))
    figures = {"seconds": seconds, "hottest_c": peak, "first_per_second": first / part, "last_per_second": last / part}
    said = f"{first / part:.0f} a second at first, {last / part:.0f} in the end, {peak:.1f} °C at most"
    if throttled:
        raise Failed(f"{said}; the chip slowed itself down: it needs a fan or a heat sink")
    if last * SLOWER < first:
        raise Failed(f"{said}; it lost more than a quarter of its speed")
    return said, figures


@asynccontextmanager
async def _watched(temperatures: list[float]) -> AsyncIterator[list[bool]]:
    """Reads the chip every second meanwhile; gives a list that is not empty once it slowed itself down."""
    throttled: list[bool] = []

    async def watch() -> None:
        while True:
            health = await asyncio.to_thread(hat_health)
            if health is not None and health.temperature_c is not None:
                temperatures.append(health.temperature_c)
            if health is not None and health.throttled:
                throttled.append(True)
            await asyncio.sleep(1.0)

    watching = asyncio.create_task(watch())
    try:
        yield throttled
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _under_load(servable: HailoServable, model: ModelSpec, seconds: float, callers: int) -> list[float]:
    """When each call ended, in seconds since the start."""
    call, started, done = synthetic_call(model), time.monotonic(), []

    async def ask() -> None:
        while (at := time.monotonic() - started) < seconds:
            await servable.infer(call, _soon())
            done.append(at)

    async with asyncio.TaskGroup() as asking:
        for _ in range(callers):
            asking.create_task(ask())
    return done


def _call(inputs: Tensors) -> Call:
    return Call(inputs, nbytes(inputs), len(next(iter(inputs.values()))), "check", {})


def _soon() -> float:
    return time.monotonic() + CALL_S
