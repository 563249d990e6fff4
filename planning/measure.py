"""Measures what can be measured from here: a model file on this device, and a model on a Triton.

Inputs are made up: zeros and empty strings, of the least size that the model takes. What depends on the content, such
as the length of a generated text, is not seen.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from backends.oip import datatype
from planning.measurements import CloudMeasurement, ModelMeasurement
from router.model import DTYPES, ModelSpec, TensorSpec

SECONDS = 2.0
"""How long each kind of load is kept up."""

LEAST_RUNS = 5
WARM_UP_RUNS = 3
ROUND_TRIPS = 20
CALLS_AT_ONCE = 16
CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 3.0


class MeasurementFailed(Exception):
    """It could not be measured; the message says why."""


def measure_model(path: Path, seconds: float = SECONDS) -> ModelMeasurement:
    """Loads and runs a model file in a process of its own, so that its memory can be told from ours.

    Raises:
        MeasurementFailed: It is no model that runs here.
    """
    if not path.is_file():
        raise MeasurementFailed(f"{path} does not exist.")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        try:
            return child.submit(_measure_here, path, seconds).result()
        except BrokenProcessPool:
            raise MeasurementFailed(f"{path}: the process that ran it died; is there enough memory?") from None


def _measure_here(path: Path, seconds: float) -> ModelMeasurement:
    # Loaded before memory is counted.
    from backends.quiet_onnxruntime import ort

    before_mb = _peak_mb()
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        inputs, outputs = tensor_specs(session.get_inputs()), tensor_specs(session.get_outputs())
        feed = ModelSpec("model", "1", inputs, outputs).synthetic_inputs()
        for _ in range(WARM_UP_RUNS):
            session.run(None, feed)
        took = _one_at_a_time(lambda: session.run(None, feed), seconds)
        per_second = _at_once(lambda: session.run(None, feed), seconds, max(1, (os.cpu_count() or 1) - 1))
    except Exception as error:
        raise MeasurementFailed(f"{path}: ONNX Runtime cannot run it: {_first_line(error)}") from None
    size_mb = path.stat().st_size / 1e6
    return ModelMeasurement(
        file=path.name,
        size_mb=size_mb,
        memory_mb=max(_peak_mb() - before_mb, size_mb),
        p50_ms=float(np.quantile(took, 0.5)) * 1000,
        p95_ms=float(np.quantile(took, 0.95)) * 1000,
        per_second=per_second,
        runs=len(took),
        inputs=inputs,
        outputs=outputs,
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def tensor_specs(nodes: Any) -> dict[str, TensorSpec]:
    """The inputs or outputs of an ONNX Runtime session, by name; sizes that it does not fix are -1."""
    from backends.onnx_session import ONNX_TYPES

    return {
        node.name: TensorSpec(
            ONNX_TYPES.get(node.type, node.type), tuple(size if isinstance(size, int) else -1 for size in node.shape)
        )
        for node in nodes
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def measure_cloud(url: str, model: str, version: str = "", seconds: float = SECONDS) -> CloudMeasurement:
    """Asks a Triton from here, one call at a time and then many at once.

    Args:
        url: `grpc://host:port`, or `grpcs://host:port` for TLS.
        model: The model's name there.
        version: Its version there; empty lets the server choose.
        seconds: How long each of the two lasts.

    Raises:
        MeasurementFailed: It does not answer, or not this model.
    """
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    parts = urlsplit(url)
    try:
        with triton.InferenceServerClient(parts.netloc, ssl=parts.scheme == "grpcs") as client:
            client.is_server_live(client_timeout=CONNECT_TIMEOUT_S)
            trips = [
                _seconds_of(lambda: client.is_server_live(client_timeout=CALL_TIMEOUT_S)) for _ in range(ROUND_TRIPS)
            ]
            inputs = _cloud_inputs(client.get_model_metadata(model, version, client_timeout=CALL_TIMEOUT_S).inputs)

            def call() -> object:
                return client.infer(model, inputs, version, client_timeout=CALL_TIMEOUT_S)

            for _ in range(WARM_UP_RUNS):
                call()
            took = _one_at_a_time(call, seconds)
            per_second = _at_once(call, seconds, CALLS_AT_ONCE)
    except (KeyError, ValueError) as error:
        raise MeasurementFailed(f"{model} at {url} takes what cannot be made up here: {error}") from None
    except InferenceServerException as error:
        raise MeasurementFailed(f"{model} at {url}: {error.message()}") from None
    return CloudMeasurement(
        url=url,
        model=model,
        version=version,
        round_trip_ms=float(np.median(trips)) * 1000,
        p95_ms=float(np.quantile(took, 0.95)) * 1000,
        per_second=per_second,
        runs=len(took),
    )


def _cloud_inputs(declared: Any) -> list[Any]:
    import tritonclient.grpc as triton

    dtypes = {datatype(name): name for name in DTYPES}
    specs = {tensor.name: TensorSpec(dtypes[tensor.datatype], tuple(tensor.shape)) for tensor in declared}
    made = ModelSpec("model", "1", specs, {}).synthetic_inputs()
    inputs = []
    for tensor in declared:
        filled = triton.InferInput(tensor.name, made[tensor.name].shape, tensor.datatype)
        filled.set_data_from_numpy(made[tensor.name])
        inputs.append(filled)
    return inputs


def _seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _one_at_a_time(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds that each of the calls took, one after the other for as long as given."""
    end = time.monotonic() + seconds
    took = [_seconds_of(call) for _ in range(LEAST_RUNS)]
    while time.monotonic() < end:
        took.append(_seconds_of(call))
    return took


def _at_once(call: Callable[[], object], seconds: float, threads: int) -> float:
    """Calls a second by so many threads, each with one under way at any time."""

    def keep_calling(end: float) -> int:
        calls = 0
        while calls == 0 or time.monotonic() < end:
            call()
            calls += 1
        return calls

    started = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        calls = sum(pool.map(keep_calling, [started + seconds] * threads))
    return calls / (time.monotonic() - started)
