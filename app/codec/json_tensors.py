"""Tensors from JSON text, and back: strict about types, exact about shapes, never larger than the text allows.

JSON arrays are decoded by msgspec against the element type and its range, so that `true`, `"1"`, `null` or 256 never
become a number of eight bits; only then does numpy see them. Nothing is allocated from a size that the caller merely
claims.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np

from router.errors import InvalidTensor
from router.model import DTYPES, Tensor

MAX_RANK = 16
MAX_DIMENSION = 2**31

_MAY_GO_ON = b"[ \t\r\n"
"""After one of these another list may be opened; nothing at all counts as one of them too."""

_OPENING = re.compile(rb"[\[ \t\r\n]*")


def _element(dtype: str) -> Any:
    """What msgspec holds each element against. Ranges of 64 bits are numpy's to check: msgspec has none so wide."""
    kind, size = DTYPES[dtype].kind, DTYPES[dtype].itemsize
    if kind in "iu":
        if size == 8:
            return int if kind == "i" else Annotated[int, msgspec.Meta(ge=0)]
        integers = np.iinfo(dtype)
        return Annotated[int, msgspec.Meta(ge=int(integers.min), le=int(integers.max))]
    if kind == "f" and size < 8:
        floats = np.finfo(dtype)
        too_large = float(floats.max) + 2.0 ** (floats.maxexp - floats.nmant - 2)  # from here on they round to infinity
        return Annotated[float, msgspec.Meta(gt=-too_large, lt=too_large)]
    return {"b": bool, "f": float, "V": float, "O": str}[kind]


_ELEMENTS = {dtype: _element(dtype) for dtype in DTYPES}


def tensor_from_json(raw: msgspec.Raw | bytes, dtype: str, field: str) -> Tensor:
    """A nested JSON list as a tensor.

    Args:
        raw: The JSON text of the list.
        dtype: A key of `DTYPES`.
        field: Its name in errors.

    Returns:
        A tensor of that dtype, with one dimension for each level of nesting.

    Raises:
        InvalidTensor: Not a list, ragged, or an element of another type or out of range.
    """
    text = bytes(raw)
    if text[:1] == b"[" and text[1:2] not in _MAY_GO_ON:
        rank = 1
    elif text[:2] == b"[[" and text[2:3] not in _MAY_GO_ON:
        rank = 2
    else:
        rank = _rank(text, field)
    try:
        nested = _decoder(rank, dtype).decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTensor(_sentence(field, dtype, error), field=field) from error
    try:
        return np.array(nested, DTYPES[dtype]) if dtype != "string" else _text_array(nested, rank)
    except OverflowError as error:
        raise InvalidTensor(f"{field} holds a number that does not fit {dtype}.", field=field) from error
    except ValueError as error:
        raise InvalidTensor(f"{field} is ragged: lists at the same level differ in length.", field=field) from error


def tensor_from_bytes(content: bytes, dtype: str, shape: Sequence[int], field: str) -> Tensor:
    """Raw little-endian elements in row-major order as a tensor, a view over the bytes.

    Raises:
        InvalidTensor: The shape is not possible, or the bytes are not that many elements.
    """
    if dtype not in DTYPES or dtype == "string":
        numeric = ", ".join(name for name in DTYPES if name != "string")
        raise InvalidTensor(f"{field}.dtype is {dtype[:40]!r}; it must be one of {numeric}.", field=f"{field}.dtype")
    check_size(shape, len(content) // DTYPES[dtype].itemsize, field)
    if len(content) % DTYPES[dtype].itemsize:
        raise InvalidTensor(f"{field} has {len(content)} bytes, not a whole number of {dtype}.", field=field)
    return np.frombuffer(content, dtype=DTYPES[dtype]).reshape(shape)


def check_size(shape: Sequence[int], elements: int, field: str) -> None:
    """Raises InvalidTensor unless a tensor of this shape has this many elements."""
    if len(shape) > MAX_RANK or (shape and (min(shape) < 1 or max(shape) > MAX_DIMENSION)):
        raise InvalidTensor(
            f"{field}.shape must have up to {MAX_RANK} dimensions of 1 to {MAX_DIMENSION}.", field=f"{field}.shape"
        )
    if math.prod(shape) != elements:
        raise InvalidTensor(
            f"{field}.shape {list(shape)} asks for {math.prod(shape)} elements; the data has {elements}.", field=field
        )


def plain(tensor: Tensor) -> Any:
    """A tensor that orjson does not write as it is, in a form that it does."""
    if tensor.dtype.kind == "O":
        return _texts(tensor.tolist())
    if tensor.dtype.kind == "V":  # bfloat16, each value of which is a float32 too
        return tensor.astype(np.float32, order="C")
    return tensor.tolist()


def _rank(text: bytes, field: str) -> int:
    """How many lists are opened before the first element."""
    opening = _OPENING.match(text)
    rank = opening[0].count(b"[") if opening else 0
    if not 1 <= rank <= MAX_RANK:
        raise InvalidTensor(f"{field} must be a list nested up to {MAX_RANK} deep.", field=field)
    return rank


@lru_cache(maxsize=256)
def _decoder(rank: int, dtype: str) -> msgspec.json.Decoder[Any]:
    nested: Any = _ELEMENTS[dtype]
    for _ in range(rank):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _text_array(nested: list[Any], rank: int) -> Tensor:
    tensor = np.array(nested, dtype=object)
    if tensor.ndim != rank:
        raise ValueError("ragged")
    flat = tensor.reshape(-1)
    flat[:] = [item.encode() for item in flat]
    return flat.reshape(tensor.shape)


def _sentence(field: str, dtype: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{field} is nested too deeply."
    where = str(error).partition("`$")[2].rstrip("`")
    what = str(error).partition(" - at")[0]
    if "array" in what:
        return f"{field}{where} is ragged: lists at the same level differ in depth or length."
    return f"{field}{where} must be {dtype}: {what[0].lower()}{what[1:]}."


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
