"""Tensors as metadata describes them, and as requests and answers carry them.

Invariants:
- What is sent is made from the metadata alone: the same metadata and number of rows give the same request.
- What is read back is counted against its own shape, so that a wrong answer is not taken for a short one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.verdict import Fails, NotTried

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
    "BYTES": np.dtype("O"),
}
"""The protocol's datatypes, and BF16, which numpy knows only by its bits."""

BF16_ONE = 0x3F80

CLOSE = 1e-3
"""How far two answers to one question may be apart, relative: a batch is summed up in another order than a row."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor as the metadata describes it; -1 in the shape stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A model as its metadata describes it.

    Attributes:
        name: Its name.
        versions: Those that may be asked for by name.
        inputs: What it takes.
        outputs: What it gives.
    """

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]

    @property
    def datatypes(self) -> frozenset[str]:
        """Of all its inputs and outputs."""
        return frozenset(spec.datatype for spec in (*self.inputs, *self.outputs))

    @property
    def batches(self) -> bool:
        """Whether every input leaves its number of rows open."""
        return all(spec.shape[:1] == (-1,) for spec in self.inputs)


def a_version(model: Model) -> str:
    """A version of the model that may be asked for by name.

    Raises:
        NotTried: Its metadata names none.
    """
    if not model.versions:
        raise NotTried(f"the metadata of {model.name} names no versions")
    return model.versions[0]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor with contents.

    Attributes:
        name: Its name.
        datatype: One of the protocol's.
        values: The elements; BYTES as `bytes` objects.
    """

    name: str
    datatype: str
    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.values.shape

    def raw(self) -> bytes:
        """The elements as the binary extension and gRPC's raw contents have them."""
        if self.datatype != "BYTES":
            return self.values.tobytes()
        return b"".join(struct.pack("<I", len(element)) + element for element in self.values.flat)

    def plain(self, nested: bool = False) -> list[Any]:
        """The elements as JSON has them, flat or nested."""
        values = self.values
        if self.datatype == "BYTES":
            values = np.array([element.decode() for element in values.flat], dtype=object).reshape(self.shape)
        listed: list[Any] = (values if nested else values.reshape(-1)).tolist()
        return listed


def sample(spec: Spec, rows: int = 1) -> Tensor:
    """A tensor that fits: zeros and ones in turn, or short texts.

    Args:
        spec: What it must fit.
        rows: What a leading -1 becomes; every other -1 becomes 1.
    """
    shape = tuple((rows if place == 0 else 1) if size < 0 else size for place, size in enumerate(spec.shape))
    count = math.prod(shape)
    if spec.datatype == "BYTES":
        values = np.array([f"text {k}".encode() for k in range(count)], dtype=object)
    else:
        ones = np.arange(count) % 2
        values = (ones * BF16_ONE if spec.datatype == "BF16" else ones).astype(DTYPES[spec.datatype])
    return Tensor(spec.name, spec.datatype, values.reshape(shape))


def samples(model: Model, rows: int = 1) -> list[Tensor]:
    """One tensor for each input of a model."""
    return [sample(spec, rows) for spec in model.inputs]


def from_plain(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> Tensor:
    """A tensor of an answer in JSON or in gRPC's typed contents.

    Raises:
        Fails: The elements are not as many as the shape says, or not of the datatype.
    """
    elements = list(_flattened(data))
    _count(name, shape, len(elements))
    if datatype == "BYTES":
        elements = [element.encode() if isinstance(element, str) else bytes(element) for element in elements]
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise Fails(f"output {name} has the datatype {datatype}, which the protocol does not know")
    values = np.empty(len(elements), dtype)
    values[:] = elements
    return Tensor(name, datatype, values.reshape(tuple(shape)))


def from_raw(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Tensor:
    """A tensor of an answer in binary form.

    Raises:
        Fails: The bytes are not as many as datatype and shape ask for.
    """
    if datatype == "BYTES":
        return from_plain(name, datatype, shape, _texts(name, data))
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise Fails(f"output {name} has the datatype {datatype}, which the protocol does not know")
    if len(data) % dtype.itemsize:
        raise Fails(f"output {name} has {len(data)} bytes, no multiple of {dtype.itemsize}")
    values = np.frombuffer(data, dtype)
    _count(name, shape, len(values))
    return Tensor(name, datatype, values.reshape(tuple(shape)))


def _texts(name: str, data: bytes) -> list[bytes]:
    found, place = [], 0
    while place < len(data):
        if place + 4 > len(data):
            raise Fails(f"output {name} ends in the middle of a length")
        (length,) = struct.unpack_from("<I", data, place)
        place += 4 + length
        if place > len(data):
            raise Fails(f"output {name} ends in the middle of an element")
        found.append(data[place - length : place])
    return found


def _flattened(data: Any) -> Any:
    for element in data:
        if isinstance(element, list):
            yield from _flattened(element)
        else:
            yield element


def _count(name: str, shape: Sequence[int], count: int) -> None:
    if math.prod(shape) != count:
        raise Fails(f"output {name} has {count} elements for the shape {list(shape)}")


def differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """What tells two answers apart, or None where nothing does."""
    if one.keys() != other.keys():
        return f"outputs {sorted(one)} against {sorted(other)}"
    for name, first in one.items():
        second = other[name]
        if (first.datatype, first.shape) != (second.datatype, second.shape):
            return f"output {name} is {first.datatype}{list(first.shape)} against {second.datatype}{list(second.shape)}"
        if not _alike(first.values, second.values):
            return f"output {name} has other values"
    return None


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=CLOSE, atol=CLOSE, equal_nan=True))
    return bool(np.array_equal(one, other))
