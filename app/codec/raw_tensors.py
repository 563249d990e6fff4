"""Tensors from raw little-endian bytes, and back to them, within a message.

- Numbers become views over the bytes that they came in. Only a tensor that starts where its elements cannot stand is
  copied: native code may read such an array wrongly, or not at all.
- A shape is held against the bytes that are there before anything is allocated; a claim alone costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from app.codec.json_tensors import check_size
from backends.oip import encode_raw
from router.errors import InvalidTensor
from router.model import DTYPES, Tensor

LENGTH_BYTES: Final = 4
"""Before each element of BYTES stands its length, a little-endian u32."""


def tensor_from_raw(message: bytes, start: int, end: int, dtype: str, shape: Sequence[int], field: str) -> Tensor:
    """A part of a message as a tensor; of BYTES, each element has its length as u32 before it.

    Args:
        message: The whole message.
        start: Where the tensor begins in it.
        end: Where it ends; at most the message's length.
        dtype: A key of `DTYPES`.
        shape: What the caller says of it.
        field: Its name in errors.

    Raises:
        InvalidTensor: The shape is not possible, or the bytes are not that many elements.
    """
    if dtype == "string":
        return _texts(message, start, end, shape, field)
    wanted = DTYPES[dtype]
    count, rest = divmod(end - start, wanted.itemsize)
    if rest:
        raise InvalidTensor(f"{field} has {end - start} bytes, not a whole number of {dtype}.", field=field)
    check_size(shape, count, field)
    # The content of bytes objects is aligned for every element type, and so is what stands at a multiple of its size.
    if start % wanted.itemsize:
        tensor = np.frombuffer(message[start:end], wanted)
    else:
        tensor = np.frombuffer(message, wanted, count, start)
    if dtype == "bool" and tensor.view(np.uint8).max() > 1:
        raise InvalidTensor(f"{field} holds a byte that is neither 0 nor 1; it must be bool.", field=field)
    return tensor.reshape(shape)


def raw_content(tensor: Tensor) -> bytes | memoryview:
    """A tensor's elements as `tensor_from_raw` reads them; a view where they lie as they are to be sent."""
    if tensor.dtype.kind in "OV" or not tensor.flags.c_contiguous:  # V is bfloat16, of which there is no memoryview
        return encode_raw(tensor)
    return tensor.data


def _texts(message: bytes, start: int, end: int, shape: Sequence[int], field: str) -> Tensor:
    items: list[bytes] = []
    at = start
    while at < end:
        first = at + LENGTH_BYTES
        at = first + int.from_bytes(message[at:first], "little")
        if at > end or first > end:
            raise InvalidTensor(f"{field} ends in the middle of element {len(items)}.", field=field)
        items.append(message[first:at])
    check_size(shape, len(items), field)
    tensor = np.empty(len(items), dtype=object)
    tensor[:] = items
    return tensor.reshape(shape)
