"""What the Open Inference Protocol says of the server and its models, as plain values in Triton's own JSON form.

That form is protobuf's JSON with the names as Triton's .proto files have them, except that 64-bit integers are numbers;
protobuf reads both. So the REST front sends these as they are, and the gRPC front parses them into its messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from app.statistics import ModelCounts, Statistics
from backends.oip import datatype
from router.deployment import ModelEntry
from router.engine import Engine
from router.errors import UnknownModel
from router.model import ModelSpec, TensorSpec

SERVER: Final = "hybrid-router"
VERSION: Final = version("hybrid-router")

EXTENSIONS: Final = ("binary_tensor_data", "parameters", "model_configuration", "statistics")

MAX_BATCH_SIZE: Final = 1024
"""What the configuration of a batchable model says. Rows are bounded by bytes and time here, not by a number; but load
generators send no more at once than this, and 0 would tell them that the model takes no batches."""


def server_metadata() -> dict[str, Any]:
    """A ServerMetadataResponse."""
    return {"name": SERVER, "version": VERSION, "extensions": list(EXTENSIONS)}


def model_spec(engine: Engine, model: str, version: str | None) -> ModelSpec:
    """The spec of a model; None is whichever version it has.

    Raises:
        UnknownModel: There is no such model, or it has another version.
    """
    return model_entry(engine, model, version).spec


def model_entry(engine: Engine, model: str, version: str | None) -> ModelEntry:
    """A model and its variants; None is whichever version it has.

    Raises:
        UnknownModel: There is no such model, or it has another version.
    """
    entry = engine.model(model)
    if version is not None and version != entry.spec.version:
        raise UnknownModel(f"{model} has no version {version[:100]!r}; it has {entry.spec.version!r}.", field="version")
    return entry


def model_metadata(spec: ModelSpec) -> dict[str, Any]:
    """A ModelMetadataResponse."""

    def tensors(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
        return [
            {"name": name, "datatype": datatype(tensor.dtype), "shape": list(tensor.shape)}
            for name, tensor in specs.items()
        ]

    return {
        "name": spec.name,
        "versions": [spec.version],
        "platform": SERVER,
        "inputs": tensors(spec.inputs),
        "outputs": tensors(spec.outputs),
    }


def model_config(entry: ModelEntry) -> dict[str, Any]:
    """A ModelConfig. The first dimension of a batchable model's tensors is the batch, which `dims` leave out."""
    spec = entry.spec
    return {
        "name": spec.name,
        "platform": SERVER,
        "backend": SERVER,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": MAX_BATCH_SIZE if spec.batchable else 0,
        "input": [
            {
                **_tensor_config(name, tensor, spec.batchable),
                "format": "FORMAT_NONE",
                "allow_ragged_batch": False,
                "optional": False,
            }
            for name, tensor in spec.inputs.items()
        ],
        "output": [
            {**_tensor_config(name, tensor, spec.batchable), "label_filename": ""}
            for name, tensor in spec.outputs.items()
        ],
        "batch_input": [],
        "batch_output": [],
        "instance_group": [],
        "default_model_filename": "",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {},
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }


def model_statistics(statistics: Statistics, engine: Engine, model: str | None, version: str | None) -> dict[str, Any]:
    """A ModelStatisticsResponse; without a model, of all that are in force.

    Raises:
        UnknownModel: There is no such model, or it has another version.
    """
    if model is None:
        specs = [entry.spec for entry in engine.deployment.models.values()]
    else:
        specs = [model_spec(engine, model, version)]
    return {"model_stats": [_statistics(spec, statistics.of(spec.name)) for spec in specs]}


def repository_index(engine: Engine, ready_only: bool) -> list[dict[str, Any]]:
    """The models of a RepositoryIndexResponse."""
    index = []
    for name, entry in engine.deployment.models.items():
        ready = is_ready(engine, name)
        if ready or not ready_only:
            reason = "" if ready else f"no backend can answer {name} at present"
            state = "READY" if ready else "UNAVAILABLE"
            index.append({"name": name, "version": entry.spec.version, "state": state, "reason": reason})
    return index


def is_ready(engine: Engine, model: str) -> bool:
    """Whether any backend could answer a model that is in force."""
    return any(target.available for target in engine.snapshot.models[model].targets)


def _tensor_config(name: str, tensor: TensorSpec, batchable: bool) -> dict[str, Any]:
    kind = datatype(tensor.dtype)
    return {
        "name": name,
        "data_type": f"TYPE_{'STRING' if kind == 'BYTES' else kind}",
        "dims": list(tensor.shape[1:] if batchable else tensor.shape),
        "is_shape_tensor": False,
    }


def _statistics(spec: ModelSpec, counts: ModelCounts) -> dict[str, Any]:
    never = _duration(0, 0.0)
    return {
        "name": spec.name,
        "version": spec.version,
        "last_inference": counts.last_ms,
        "inference_count": counts.rows,
        "execution_count": counts.executions,
        "inference_stats": {
            "success": _duration(counts.answered, counts.answered_s),
            "fail": _duration(counts.failed, counts.failed_s),
            "queue": _duration(counts.executions, counts.queue_s),
            "compute_input": _duration(counts.executions, 0.0),
            "compute_infer": _duration(counts.executions, counts.compute_s),
            "compute_output": _duration(counts.executions, 0.0),
            "cache_hit": never,
            "cache_miss": never,
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}
