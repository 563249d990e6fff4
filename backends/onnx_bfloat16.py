"""Runs ONNX models that have bfloat16 tensors: ONNX Runtime has those, but takes and gives no numpy arrays of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from backends.quiet_onnxruntime import ort
from router.errors import BackendUnavailable
from router.model import DTYPES, ModelSpec, Tensor, Tensors

BFLOAT16: Final = DTYPES["bfloat16"]

_ONNX_BFLOAT16: Final = 16
"""Its number in ONNX's TensorProto.DataType."""

Run = Callable[[Sequence[str], Tensors, Any], list[Tensor]]


def has_bfloat16(model: ModelSpec) -> bool:
    """Whether any tensor of the model is bfloat16."""
    return any(spec.dtype == "bfloat16" for spec in (*model.inputs.values(), *model.outputs.values()))


def bfloat16_run(session: ort.InferenceSession, model: ModelSpec) -> Run:
    """A `run` like the session's own that takes and gives bfloat16 too.

    Raises:
        BackendUnavailable: The model takes text too: of that, in turn, there is nothing but numpy arrays.
    """
    if any(spec.dtype == "string" for spec in model.inputs.values()):
        raise BackendUnavailable(
            f"{model.name} has bfloat16 tensors and takes text; ONNX Runtime cannot be given both."
        )

    def run(names: Sequence[str], inputs: Tensors, options: Any) -> list[Tensor]:
        values = {name: _value(tensor) for name, tensor in inputs.items()}
        return [_tensor(value) for value in session.run_with_ort_values(names, values, options)]

    return run


def _value(tensor: Tensor) -> ort.OrtValue:
    if tensor.dtype == BFLOAT16:
        bits = np.ascontiguousarray(tensor).view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(tensor)


def _tensor(value: ort.OrtValue) -> Tensor:
    if value.data_type() == "tensor(bfloat16)":
        content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
        return np.frombuffer(content, BFLOAT16).reshape(value.shape())
    tensor: Tensor = value.numpy()
    return tensor
