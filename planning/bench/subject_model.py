"""The model under benchmark and what is sent to it: opened, made up where the plan says so, and told from others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from planning.bench.payload import UnusablePayload, as_json, read_payload
from planning.bench.plan import Plan
from planning.bench.results import ModelFacts
from planning.measure import tensor_specs
from router.model import DTYPES, ModelSpec, TensorSpec


class UnusableModel(Exception):
    """The plan's model, or its payload, cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class SubjectModel:
    """A model, ready to be served and asked.

    Args:
        file: The ONNX file.
        spec: Its tensors.
        facts: What results say of it.
        body: The request's JSON body.
        digest: Of all that decides what is computed and sent.
    """

    file: Path
    spec: ModelSpec
    facts: ModelFacts
    body: bytes
    digest: str


def prepare(plan: Plan, folder: Path) -> SubjectModel:
    """Opens the plan's model, or makes it in a folder.

    Raises:
        UnusableModel: It cannot be had, or the payload does not fit it.
    """
    wanted = plan.model
    file, note = _file(plan, folder)
    spec = _spec(file, wanted.name)
    if wanted.confidence_output and wanted.confidence_output not in spec.outputs:
        raise UnusableModel(f"model.confidence_output: {file.name} has no output {wanted.confidence_output!r}.")
    inputs = _given(wanted.payload, spec) if wanted.payload else _noise(spec, plan.seed)
    body = msgspec.json.encode({"model": wanted.name, "inputs": inputs})
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    # A made model is told by what it was made from: another version of the package onnx may write it otherwise.
    identity = content if wanted.file else f"{wanted.made_mb:g} MB, {wanted.image_side} pixels, seed {plan.seed}"
    digest = hashlib.sha256(identity.encode() + b"\0" + body).hexdigest()
    facts = ModelFacts(wanted.name, file.name, file.stat().st_size / 1e6, content, note)
    return SubjectModel(file, spec, facts, body, digest)


def _file(plan: Plan, folder: Path) -> tuple[Path, str]:
    if plan.model.file:
        file = Path(plan.model.file)
        if not file.is_file():
            raise UnusableModel(f"model.file: {file} does not exist.")
        return file, ""
    from planning.bench.made_model import NOTE, make_model

    file = folder / f"vision-{plan.model.made_mb:g}mb.onnx"
    make_model(file, plan.model.made_mb, plan.model.image_side, plan.seed)
    return file, NOTE


def _spec(file: Path, name: str) -> ModelSpec:
    import backends.onnx  # noqa: F401  (sees to it that ONNX Runtime reports to nobody, and must come first)

    import onnxruntime as ort  # isort: skip

    try:
        session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return ModelSpec(name, "1", tensor_specs(session.get_inputs()), tensor_specs(session.get_outputs()))
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnusableModel(f"model.file: ONNX Runtime cannot open {file}: {first}") from None


def _given(payload: str, spec: ModelSpec) -> dict[str, Any]:
    try:
        return read_payload(Path(payload), spec)
    except UnusablePayload as error:
        raise UnusableModel(f"model.payload: {payload} {error}") from None


def _noise(spec: ModelSpec, seed: int) -> dict[str, Any]:
    randomness = np.random.default_rng(seed)
    return {
        name: as_json(tensor_spec.dtype, _made_up(tensor_spec, randomness)) for name, tensor_spec in spec.inputs.items()
    }


def _made_up(spec: TensorSpec, randomness: np.random.Generator) -> NDArray[Any]:
    shape = tuple(max(1, size) for size in spec.shape)
    if spec.dtype == "string":
        raise UnusableModel("model.payload: inputs of text cannot be made up; name a file with some.")
    kind = DTYPES[spec.dtype].kind
    if kind == "f":
        return randomness.random(shape).astype(DTYPES[spec.dtype])
    # Indices and tokens: 0 and 1 are in any vocabulary.
    return randomness.integers(0, 2, shape).astype(DTYPES[spec.dtype])
