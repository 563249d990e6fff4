"""What a model file says of itself, read without ONNX Runtime and without loading it.

Only the few fields that are needed are looked at, in the wire format of protocol buffers; weights are skipped. The
field numbers are those of onnx.proto, which never change.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MODEL_GRAPH, MODEL_OPSET = 7, 8
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_NODE, GRAPH_TENSOR = 1, 5
NODE_OPERATOR, NODE_DOMAIN = 4, 7
TENSOR_EXTERNAL = 13
ENTRY_KEY, ENTRY_VALUE = 1, 2

OWN_DOMAIN = "ai.onnx"
"""What the empty domain stands for."""

LOADING_FACTOR = 1.75
"""Loading a model of 168 MB took 1.6 times its bytes: the file as parsed, and the tensors made of it."""

OPTIMISING_FACTOR = 3.25
"""And 3.0 times where ONNX Runtime also wrote the optimised model down."""

LOADING_BYTES = 16 << 20
"""What a session takes whatever its model."""

Span = tuple[int, int]
"""Where a field's bytes begin and end in the file."""


class NotAModel(Exception):
    """The file is no ONNX model; the message says why."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file.

    Args:
        path: Where it is.
        file_bytes: Its size.
        external: Files beside it that hold weights.
        external_bytes: The size of those that exist.
        opsets: The version of each domain's operators that it asks for.
        operators: How often each operator stands in the main graph, with its domain if it is not ONNX's own.
    """

    path: Path
    file_bytes: int
    external: tuple[str, ...]
    external_bytes: int
    opsets: Mapping[str, int]
    operators: Mapping[str, int]

    @property
    def needed_bytes(self) -> int:
        """About what loading it takes at its peak; what runs take on top depends on the input's size."""
        return round(LOADING_FACTOR * (self.file_bytes + self.external_bytes)) + self.external_bytes + LOADING_BYTES

    @property
    def optimising_bytes(self) -> int:
        """The same, where the optimised model is written down too."""
        return round(OPTIMISING_FACTOR * (self.file_bytes + self.external_bytes)) + LOADING_BYTES

    @property
    def missing(self) -> tuple[str, ...]:
        """The files with weights that are not there."""
        return tuple(name for name in self.external if not (self.path.parent / name).is_file())


def read_model_file(path: Path) -> ModelFile:
    """Reads what a model file says of itself.

    Raises:
        NotAModel: It is none, or is cut short.
        OSError: It cannot be read.
    """
    # Not mapped into memory: whoever cuts the file short meanwhile would end the process.
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise NotAModel(f"{path} is empty")
        try:
            opsets, operators, external = _walk(file, size)
        except (IndexError, ValueError) as error:
            raise NotAModel(f"{path} is no ONNX model, or is cut short") from error
    if not opsets:
        raise NotAModel(f"{path} is no ONNX model: it names no operator set")
    beside = [path.parent / name for name in external]
    return ModelFile(
        path=path,
        file_bytes=size,
        external=tuple(external),
        external_bytes=sum(file.stat().st_size for file in beside if file.is_file()),
        opsets=opsets,
        operators=dict(operators),
    )


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(file: BinaryIO, size: int) -> tuple[dict[str, int], Counter[str], list[str]]:
    opsets: dict[str, int] = {}
    operators: Counter[str] = Counter()
    external: dict[str, None] = {}
    for number, value in _fields(file, (0, size)):
        if number == MODEL_OPSET:
            fields = dict(_fields(file, value))
            opsets[_text(file, fields.get(OPSET_DOMAIN)) or OWN_DOMAIN] = _integer(fields.get(OPSET_VERSION))
        elif number == MODEL_GRAPH:
            for kind, part in _fields(file, value):
                if kind == GRAPH_NODE:
                    operators[_operator(file, part)] += 1
                elif kind == GRAPH_TENSOR:
                    external |= dict.fromkeys(_external(file, part))
    return opsets, operators, list(external)


def _operator(file: BinaryIO, node: Span | int) -> str:
    fields = dict(_fields(file, node))
    domain = _text(file, fields.get(NODE_DOMAIN))
    name = _text(file, fields.get(NODE_OPERATOR))
    return f"{domain}:{name}" if domain not in ("", OWN_DOMAIN) else name


def _external(file: BinaryIO, tensor: Span | int) -> Iterator[str]:
    """The file that a tensor's values are in, if they are in another."""
    for number, value in _fields(file, tensor):
        if number == TENSOR_EXTERNAL:
            entry = dict(_fields(file, value))
            if _text(file, entry.get(ENTRY_KEY)) == "location":
                yield _text(file, entry.get(ENTRY_VALUE))


def _fields(file: BinaryIO, message: Span | int) -> Iterator[tuple[int, Span | int]]:
    """The fields of a message: bytes as spans, variable-length integers as such, fixed ones as 0.

    Raises:
        IndexError: The message ends within a field.
        ValueError: It is no message.
    """
    if isinstance(message, int):
        raise ValueError("a number stands where a message should")
    at, end = message
    while at < end:
        tag, at = _variable(file, at)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has the number 0")
        value: Span | int = 0
        if kind == 0:
            value, at = _variable(file, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _variable(file, at)
            value, at = (at, at + length), at + length
        else:
            raise ValueError(f"a field is of kind {kind}")
        if at > end:
            raise IndexError("a field is longer than its message")
        yield number, value


def _variable(file: BinaryIO, at: int) -> tuple[int, int]:
    """A variable-length integer, and where what follows begins."""
    file.seek(at)
    value = shift = 0
    while True:
        byte = file.read(1)[0]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("an integer is longer than 64 bits")


def _text(file: BinaryIO, value: Span | int | None) -> str:
    if not isinstance(value, tuple):
        return ""
    file.seek(value[0])
    return file.read(value[1] - value[0]).decode(errors="replace")


def _integer(value: Span | int | None) -> int:
    return value if isinstance(value, int) else 0
