"""What was measured, and how it takes the place of what was assumed. Pure; `planning.measure` does the measuring."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from planning.assumptions import assumed_anew
from planning.workload import CloudModel, Provenance, Serving, Workload
from router.model import TensorSpec

LEAST_MS = 0.001
"""A time too short to be told from nothing still has to be above nothing."""


@dataclass(frozen=True, slots=True)
class ModelMeasurement:
    """A model file on this device.

    Args:
        file: The file's name.
        size_mb: Of the file.
        memory_mb: What loading and running it added to the process.
        p50_ms: One run at a time.
        p95_ms: The same.
        per_second: Runs a second, as many at once as the gateway would.
        runs: How many were timed.
        inputs: Its input tensors.
        outputs: Its output tensors.
    """

    file: str
    size_mb: float
    memory_mb: float
    p50_ms: float
    p95_ms: float
    per_second: float
    runs: int
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class CloudMeasurement:
    """A model on a Triton, from this device.

    Args:
        url: The server.
        model: Its name there.
        version: Its version there; empty lets the server choose.
        round_trip_ms: Median of calls that compute nothing.
        p95_ms: End to end, one call at a time.
        per_second: Calls a second, many at once.
        runs: How many were timed.
    """

    url: str
    model: str
    version: str
    round_trip_ms: float
    p95_ms: float
    per_second: float
    runs: int


def with_model(workload: Workload, seen: ModelMeasurement) -> Workload:
    """The workload with what was measured of the model on this device, and what is assumed from that."""
    source = Provenance("measured", f"{seen.file} on this device, {seen.runs:,} runs with empty input")
    values: dict[str, Any] = {
        "size_mb": seen.size_mb,
        "memory_mb": seen.memory_mb,
        "edge_p95_ms": max(seen.p95_ms, LEAST_MS),
        "device_per_second": seen.per_second,
    }
    serving = workload.serving or Serving(_model_name(seen.file), seen.inputs, seen.outputs)
    return assumed_anew(
        replace(
            workload,
            **values,
            serving=replace(serving, edge_file=serving.edge_file or seen.file),
            provenance={**workload.provenance, **dict.fromkeys(values, source)},
        )
    )


def with_cloud(workload: Workload, seen: CloudMeasurement) -> Workload:
    """The workload with what was measured of the cloud."""
    source = Provenance(
        "measured", f"{seen.model} at {seen.url} from this device, {seen.runs:,} calls with empty input"
    )
    values: dict[str, Any] = {
        "round_trip_ms": seen.round_trip_ms,
        "cloud_compute_p95_ms": max(seen.p95_ms - seen.round_trip_ms, LEAST_MS),
        "node_per_second": seen.per_second,
    }
    serving = workload.serving
    if serving is not None and serving.cloud is None:
        serving = replace(serving, cloud=CloudModel(seen.url, seen.model, seen.version))
    return replace(
        workload,
        **values,
        serving=serving,
        provenance={**workload.provenance, **dict.fromkeys(values, source)},
    )


def _model_name(file: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", file.removesuffix(".onnx")).lstrip("._-")[:64] or "model"
