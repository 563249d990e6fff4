"""Tensors from the typed lists of protobuf's `InferTensorContents`.

A shape is held against the elements that are there before anything is allocated; a claim alone costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from app.codec.json_tensors import check_size
from router.errors import InvalidTensor
from router.model import DTYPES, Tensor

_CONTENTS: Final = {
    "bool": "bool_contents",
    **{f"int{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"uint{bits}": "uint_contents" for bits in (8, 16, 32)},
    "int64": "int64_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
    "string": "bytes_contents",
}
"""Where the elements of a dtype stand. A 16-bit float has no such place and always comes raw."""


def tensor_from_contents(contents: Any, dtype: str, shape: Sequence[int], field: str) -> Tensor:
    """The typed lists of an `InferTensorContents` as a tensor.

    Args:
        contents: The message.
        dtype: A key of `DTYPES`.
        shape: What the caller says of it.
        field: Its name in errors.

    Raises:
        InvalidTensor: The elements stand in another list, do not fit the dtype, or are not as many as the shape asks.
    """
    name = _CONTENTS.get(dtype)
    if name is None:
        raise InvalidTensor(f"{field} is {dtype}, which has no typed contents; send raw_input_contents.", field=field)
    for descriptor, _ in contents.ListFields():
        if descriptor.name != name:
            raise InvalidTensor(f"{field} is {dtype}: its elements belong into contents.{name}.", field=field)
    values = getattr(contents, name)
    check_size(shape, len(values), field)
    return _array(values, dtype, field).reshape(shape)


def _array(values: Any, dtype: str, field: str) -> Tensor:
    wanted = DTYPES[dtype]
    if wanted.kind == "O":
        return _objects(list(values))
    if wanted.kind not in "iu" or wanted.itemsize >= 4:
        return np.fromiter(values, wanted, len(values))
    wide = np.fromiter(values, np.int64, len(values))
    limits = np.iinfo(wanted)
    if wide.min() < limits.min or wide.max() > limits.max:
        raise InvalidTensor(f"{field} holds a number that does not fit {dtype}.", field=field)
    return wide.astype(wanted)


def _objects(items: list[bytes]) -> Tensor:
    tensor = np.empty(len(items), dtype=object)
    tensor[:] = items
    return tensor
