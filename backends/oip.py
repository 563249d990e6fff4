"""Tensors as the Open Inference Protocol writes them: its datatype names, and raw little-endian contents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from router.errors import BackendFailed
from router.model import DTYPES, Tensor

_DATATYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "bfloat16": "BF16",
    "object": "BYTES",
    "string": "BYTES",
}
_OF_DTYPE = {dtype: _DATATYPES[name] for name, dtype in DTYPES.items()}
"""By the dtype itself: what numpy calls it takes microseconds to find out."""


def datatype(dtype: np.dtype[Any] | str) -> str:
    """The protocol's name of an element type: `FP32` for float32."""
    return _DATATYPES[dtype] if isinstance(dtype, str) else _OF_DTYPE[dtype]


def bytes_tensor(content: bytes) -> Tensor:
    """One element of BYTES, shape [1, 1]."""
    tensor = np.empty((1, 1), dtype=object)
    tensor[0, 0] = content
    return tensor


def encode_raw(tensor: Tensor) -> bytes:
    """A tensor's elements in row-major order, little-endian; of BYTES, each with its length as u32 before it."""
    if tensor.dtype != object:
        return tensor.tobytes()
    parts: list[bytes] = []
    for item in tensor.flat:
        content = item if isinstance(item, bytes) else str(item).encode()
        parts += (len(content).to_bytes(4, "little"), content)
    return b"".join(parts)


def decode_raw(raw: bytes, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor that `encode_raw` wrote.

    Raises:
        BackendFailed: The bytes are not that many elements.
    """
    if dtype != "string":
        if len(raw) != DTYPES[dtype].itemsize * math.prod(shape):
            raise BackendFailed(f"An answer of {len(raw)} bytes is not {dtype} {list(shape)}.")
        return np.frombuffer(raw, dtype=DTYPES[dtype]).reshape(shape)
    items: list[bytes] = []
    at = 0
    while at + 4 <= len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        items.append(raw[at + 4 : end])
        at = end
    tensor = np.empty(len(items), dtype=object)
    tensor[:] = items
    if at != len(raw) or len(items) != math.prod(shape):
        raise BackendFailed(f"An answer of {len(raw)} bytes is not BYTES {list(shape)}.")
    return tensor.reshape(shape)
