"""Tensors as the Open Inference Protocol writes them in JSON: nested or flat lists, in row-major order."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np

from router.errors import BackendFailed, BackendRejectedInput
from router.model import DTYPES, Tensor

MAX_RANK = 16

_OPENING = re.compile(rb"[\[ \t\r\n]*")

_ELEMENTS: dict[str, Any] = {
    "b": bool,
    "i": int,
    "u": Annotated[int, msgspec.Meta(ge=0)],
    "f": float | None,  # null is how servers write what JSON has no number for
    "V": float | None,  # bfloat16: no server should write it here, but numbers are numbers
    "O": str,
}


def to_json(tensor: Tensor, name: str) -> Any:
    """A tensor's elements, flat, in a form that orjson writes.

    Raises:
        BackendRejectedInput: JSON cannot hold them: numbers that are not finite, bytes that are no text.
    """
    if tensor.dtype == object:
        try:
            return [item.decode() if isinstance(item, bytes) else str(item) for item in tensor.flat]
        except UnicodeDecodeError:
            raise BackendRejectedInput(f"{name} holds bytes that are no text; the server takes JSON only.") from None
    if tensor.dtype.kind not in "biuf":
        raise BackendRejectedInput(f"{name} is {tensor.dtype}, which JSON cannot hold; the server takes nothing else.")
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise BackendRejectedInput(f"{name} holds NaN or an infinity, and the server takes JSON only.")
    return np.ascontiguousarray(tensor).reshape(-1)


def from_json(text: bytes, dtype: str, shape: tuple[int, ...], name: str) -> Tensor:
    """The tensor that a server wrote.

    Raises:
        BackendFailed: The text is no list of such elements, or not of so many.
    """
    opening = _OPENING.match(text)
    rank = opening[0].count(b"[") if opening else 0
    if not 1 <= rank <= MAX_RANK:
        raise BackendFailed(f"The server's {name} is no list.")
    try:
        return _array(_decoder(rank, DTYPES[dtype].kind).decode(text), dtype).reshape(shape)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as error:
        raise BackendFailed(f"The server's {name} is not {dtype} {list(shape)}: {str(error)[:100]}") from error


@lru_cache(maxsize=256)
def _decoder(rank: int, kind: str) -> msgspec.json.Decoder[Any]:
    nested: Any = _ELEMENTS[kind]
    for _ in range(rank):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _array(nested: list[Any], dtype: str) -> Tensor:
    wanted = DTYPES[dtype]
    if wanted.kind in "iu" and wanted.itemsize < 8:
        wide = np.array(nested, dtype=np.int64)
        limits = np.iinfo(wanted)
        if wide.size and (wide.min() < limits.min or wide.max() > limits.max):
            raise OverflowError(f"a number does not fit {dtype}")
        return wide.astype(wanted)
    if wanted.kind == "O":
        texts = np.array(nested, dtype=object).reshape(-1)
        for at, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError("ragged")
            texts[at] = text.encode()
        return texts
    with np.errstate(over="ignore"):
        return np.array(nested, dtype=wanted)
