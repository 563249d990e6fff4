"""Measures how a model runs: what a run takes, which operators take it, and how much memory the model holds."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backends.onnx import OnnxOptions, loader_of
from backends.onnx_session import Loader, dtype_and_shape
from backends.quiet_onnxruntime import ort
from router.errors import BackendError, BackendUnavailable
from router.model import ModelSpec, TensorSpec
from router.ports import Backend, VariantOptions, synthetic_call

WARM_UP_RUNS = 3
LEAST_PROFILED_RUNS = 9
CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """What the runs of one kind of operator took.

    Args:
        operator: Its name.
        provider: Who ran it.
        calls: How many there are in a run.
        ms: Milliseconds that they take of a run, on average.
        share: Their share of all operators' time.
    """

    operator: str
    provider: str
    calls: float
    ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Profile:
    """How one variant runs. Milliseconds and megabytes; None where it cannot be seen from here.

    Args:
        variant: What was measured.
        problem: Why it could not be; everything else is empty then.
        rows: Rows of a run.
        runs: How many runs were timed.
        p50_ms, p95_ms, p99_ms: What they took, network included.
        load_ms: What loading took.
        memory_mb: What the process grew by while it loaded and ran.
        provider: Who runs most of it.
        operators: The slowest first.
    """

    variant: str
    problem: str | None = None
    rows: int = 0
    runs: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    load_ms: float | None = None
    memory_mb: float | None = None
    provider: str | None = None
    operators: tuple[OperatorTime, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """As JSON's types."""
        return asdict(self)


def profile_file(path: Path, options: OnnxOptions, rows: int, runs: int) -> Profile:
    """Profiles a model file in a process of its own, so that its memory can be told from ours."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        try:
            return child.submit(_profile_here, path, options, rows, runs).result()
        except BrokenProcessPool:
            return Profile(path.name, "the process that ran it died; is there enough memory?")


def _profile_here(path: Path, options: OnnxOptions, rows: int, runs: int) -> Profile:
    loader = loader_of(options, Path("/"), None)
    before_mb = _resident_mb()
    began = time.perf_counter()
    try:
        loaded = loader.load(path)
    except BackendUnavailable as error:
        return Profile(path.name, error.detail)
    load_ms = (time.perf_counter() - began) * 1000
    try:
        feed = made_up(loaded.session.get_inputs(), rows)
        took = timed_runs(loaded.session, feed, runs)
        memory_mb = _resident_mb() - before_mb
        operators = _operator_times(path, loader, list(loaded.placed), feed, max(LEAST_PROFILED_RUNS, runs // 10))
    except Exception as error:  # whatever the runtime raises, it is about this model
        return Profile(path.name, f"it does not run with made-up input: {error}")
    p50, p95, p99 = quantiles_ms(took)
    return Profile(
        path.name, None, rows, len(took), p50, p95, p99, load_ms, memory_mb, loaded.provider, tuple(operators)
    )


async def profile_variant(backend: Backend, model: ModelSpec, variant: VariantOptions, rows: int, runs: int) -> Profile:
    """Profiles a variant that runs elsewhere, by asking for it one call at a time."""
    try:
        servable = await backend.open(model, variant)
        try:
            call = synthetic_call(model)
            assert isinstance(call.payload, dict), "made-up input is tensors"
            if rows > 1 and model.batchable:
                call.payload = {name: np.repeat(tensor, rows, axis=0) for name, tensor in call.payload.items()}
                call.payload_bytes *= rows
            took = []
            for _ in range(WARM_UP_RUNS + runs):
                began = time.perf_counter()
                await servable.infer(call, time.monotonic() + CALL_TIMEOUT_S)
                took.append(time.perf_counter() - began)
        finally:
            await servable.close()
    except BackendError as error:
        return Profile(variant.label, error.detail)
    finally:
        await backend.close()
        await asyncio.sleep(0)  # lets connections end before the loop does
    p50, p95, p99 = quantiles_ms(took[WARM_UP_RUNS:])
    return Profile(variant.label, None, rows if model.batchable else 1, runs, p50, p95, p99)


def made_up(inputs: Sequence[Any], rows: int) -> dict[str, Any]:
    """Zeros for a session's inputs: so many rows where the first dimension is open, else the least size."""
    specs = {node.name: TensorSpec(*dtype_and_shape(node)) for node in inputs}
    made: dict[str, Any] = ModelSpec("model", "1", specs, specs).synthetic_inputs()
    if all(spec.shape and spec.shape[0] == -1 for spec in specs.values()):
        made = {name: np.repeat(tensor, rows, axis=0) for name, tensor in made.items()}
    return made


def timed_runs(session: ort.InferenceSession, feed: dict[str, Any], runs: int) -> list[float]:
    """Seconds that each of so many runs took, after some that are not counted."""
    took = []
    for _ in range(WARM_UP_RUNS + runs):
        began = time.perf_counter()
        session.run(None, feed)
        took.append(time.perf_counter() - began)
    return took[WARM_UP_RUNS:]


def quantiles_ms(took: Sequence[float]) -> tuple[float, float, float]:
    """P50, P95 and P99 of these seconds, in milliseconds."""
    p50, p95, p99 = np.quantile(np.array(took) * 1000, [0.5, 0.95, 0.99])
    return float(p50), float(p95), float(p99)


def _operator_times(
    path: Path, loader: Loader, providers: list[str], feed: dict[str, Any], runs: int
) -> list[OperatorTime]:
    """What ONNX Runtime's own profiler says, in a session of its own: profiling slows runs down."""
    settings = loader.settings()
    settings.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="hybrid-router-profile-") as folder:
        settings.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(str(path), settings, providers=providers)
        for _ in range(runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return operator_times(events, runs)


def operator_times(events: Sequence[dict[str, Any]], runs: int) -> list[OperatorTime]:
    """The time of each kind of operator in one run, by the events of ONNX Runtime's profiler, the slowest first.

    Of each node the median counts: a single run in which another process had the core would be most of any mean.
    """
    nodes: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            args = event["args"]
            nodes[args["op_name"], args.get("provider", ""), event["name"]].append(event["dur"] / 1000)
    kinds: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for (operator, provider, _), took in nodes.items():
        calls = len(took) / runs
        kinds[operator, provider].append((calls, calls * statistics.median(took)))
    sums = {kind: (sum(calls for calls, _ in each), sum(ms for _, ms in each)) for kind, each in kinds.items()}
    total = sum(ms for _, ms in sums.values()) or 1.0
    times = [OperatorTime(*kind, calls, ms, ms / total) for kind, (calls, ms) in sums.items()]
    return sorted(times, key=lambda time: -time.ms)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6
