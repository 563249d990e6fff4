"""What is sent to the model under benchmark: read from a file, and held against the model.

Invariant: what `read_payload` returns, a gateway that serves the model takes, in its names, types, shapes and values.
"""

from __future__ import annotations

import base64
import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from router.errors import InvalidTensor
from router.model import DTYPES, ModelSpec, Tensor, TensorSpec

ELEMENTS: Final[Mapping[str, type]] = {"b": bool, "i": int, "u": int, "f": float, "V": float, "O": str}
"""What JSON has for a kind of element."""

UNREADABLE: Final = (
    *(OSError, EOFError, ValueError, RecursionError, NotImplementedError),
    *(msgspec.MsgspecError, zipfile.BadZipFile, zlib.error),
)
"""What torn files, and files of another kind, end in."""


class UnusablePayload(Exception):
    """A payload that cannot be read, or that the model does not take; the message goes after the file's name."""


class _Raw(msgspec.Struct, forbid_unknown_fields=True):
    """A tensor as base64 of its little-endian elements in row-major order."""

    dtype: str
    shape: list[int]
    base64: bytes


def read_payload(file: Path, spec: ModelSpec) -> dict[str, Any]:
    """A payload as the gateway takes it in JSON.

    Args:
        file: JSON (`{"NAME": nested list}`, or dtype, shape and base64 for the list), or an .npz of arrays.
        spec: The model's tensors.

    Raises:
        UnusablePayload: It cannot be read, or the model does not take it.
    """
    try:
        if file.suffix == ".npz":
            tensors = _arrays(file)
            inputs = {name: as_json(str(tensor.dtype), tensor) for name, tensor in tensors.items()}
        else:
            inputs = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
            tensors = {
                name: _tensor(given, spec.inputs[name], f"inputs.{name}") if name in spec.inputs else np.empty(0)
                for name, given in inputs.items()
            }
    except UNREADABLE as error:
        said = ((error.strerror or "") if isinstance(error, OSError) else str(error)).rstrip(".")
        raise UnusablePayload(f"cannot be read: {said.rstrip('.') or type(error).__name__}.") from None
    try:
        spec.check_inputs(tensors)
    except InvalidTensor as error:
        raise UnusablePayload(f"does not fit the model: {error}") from None
    return inputs


def as_json(dtype: str, tensor: NDArray[Any]) -> Any:
    """A tensor as the gateway takes it in JSON: text as lists, numbers without a digit for each bit."""
    if tensor.dtype == object:
        return tensor.tolist()
    little_endian = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
    return {"dtype": dtype, "shape": list(tensor.shape), "base64": base64.b64encode(little_endian.tobytes()).decode()}


def _arrays(file: Path) -> dict[str, Tensor]:
    content = io.BytesIO(file.read_bytes())  # of a torn file that it opened itself, numpy leaves the descriptor open
    if not zipfile.is_zipfile(content):
        raise ValueError("it is no .npz file, or only a part of one")
    with np.load(content, allow_pickle=False) as loaded:
        return {name: _native(loaded[name]) for name in loaded.files}


def _native(array: NDArray[Any]) -> Tensor:
    """An array with the gateway's element types: text is objects, and bytes are in this machine's order."""
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    return array.astype(object) if array.dtype.kind == "U" else array.astype(array.dtype.newbyteorder("="), copy=False)


def _tensor(given: Any, spec: TensorSpec, field: str) -> Tensor:
    """A tensor of the payload, from a nested list, or from dtype, shape and base64.

    Raises:
        UnusablePayload: It is neither.
    """
    if isinstance(given, dict):
        return _from_bytes(given, field)
    if not isinstance(given, list):
        raise UnusablePayload(f"does not fit the model: {field} must be a nested list, or dtype, shape and base64.")
    nested: Any = ELEMENTS[DTYPES[spec.dtype].kind]
    for _ in spec.shape:
        nested = list[nested]
    try:
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused by name
            return np.array(msgspec.convert(given, nested), DTYPES[spec.dtype])
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        wanted = f"{spec.dtype} in lists, {len(spec.shape)} deep"
        raise UnusablePayload(f"does not fit the model: {field} must be {wanted}: {error}.") from None


def _from_bytes(given: dict[str, Any], field: str) -> Tensor:
    try:
        raw = msgspec.convert(given, _Raw)
    except msgspec.ValidationError as error:
        raise UnusablePayload(
            f"does not fit the model: {field} must be a nested list, or dtype, shape and base64: {error}."
        ) from None
    kind = DTYPES.get(raw.dtype)
    if kind is None or kind.hasobject or any(size < 1 for size in raw.shape):
        raise UnusablePayload(f"does not fit the model: {field} has dtype {raw.dtype!r} and shape {raw.shape}.")
    if len(raw.base64) != math.prod(raw.shape) * kind.itemsize:
        raise UnusablePayload(
            f"does not fit the model: {field} has {len(raw.base64)} bytes; its dtype and shape ask for "
            f"{math.prod(raw.shape) * kind.itemsize}."
        )
    return np.frombuffer(raw.base64, kind).reshape(raw.shape)
