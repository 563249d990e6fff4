"""How a model's tensors become HailoRT's streams and back: names, layout, quantisation. Pure.

Invariants: a frame is one row of every tensor; what goes to HailoRT is C-contiguous, writeable and shares no memory
with the caller's tensor; layout is a permutation, so there and back gives the same numbers; a number in the range of an
integer format comes back within half a step of its scale; one outside is clipped to that range, never wrapped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from router.errors import BackendUnavailable
from router.model import DTYPES, Tensor, TensorSpec


@dataclass(frozen=True, slots=True)
class HailoTensor:
    """How one tensor of a model goes over a stream of the .hef.

    Args:
        stream: The stream's name in the .hef; empty is the tensor's own name, or the only stream there is.
        layout: How the model's tensor is laid out: `same` as the stream (images are height, width, channels), `nchw`
            (channels before height and width), or `flat` (only the number of elements has to agree).
        format: What is handed to HailoRT: `float32` lets HailoRT quantise; `uint8` and `uint16` are the chip's numbers.
        scale: tensor = (stream - zero_point) x scale. By default 1 for float32, and the .hef's own otherwise.
        zero_point: By default 0 for float32, and the .hef's own otherwise.
    """

    stream: str = ""
    layout: Literal["same", "nchw", "flat"] = "same"
    format: Literal["float32", "uint8", "uint16"] = "float32"
    scale: float | None = None
    zero_point: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError("scale must be greater than 0")
        if self.zero_point is not None and not math.isfinite(self.zero_point):
            raise ValueError("zero_point must be a finite number")


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream, as the .hef has it.

    Args:
        name: Its name.
        shape: Sizes of a frame: height, width, channels for images, one number for vectors.
        scale: Of the .hef's quantisation.
        zero_point: Of the .hef's quantisation.
        is_nms: Whether it carries detections, whose number varies.
    """

    name: str
    shape: tuple[int, ...]
    scale: float = 1.0
    zero_point: float = 0.0
    is_nms: bool = False


@dataclass(frozen=True, slots=True)
class Conversion:
    """One tensor's way to its stream and back; made by `fitted`.

    Args:
        stream: The stream's name.
        frame: Shape of a frame of the stream.
        row: Shape of a row of the tensor.
        transposed: Whether the tensor has its channels first.
        stream_dtype: Element type of what is handed to HailoRT.
        tensor_dtype: Element type of the tensor.
        scale: tensor = (stream - zero_point) x scale.
        zero_point: See `scale`.
    """

    stream: str
    frame: tuple[int, ...]
    row: tuple[int, ...]
    transposed: bool
    stream_dtype: np.dtype[Any]
    tensor_dtype: np.dtype[Any]
    scale: float
    zero_point: float

    def empty(self, rows: int) -> Tensor:
        """Room for the frames of so many rows."""
        return np.zeros((rows, *self.frame), self.stream_dtype)

    def to_stream(self, tensor: Tensor) -> Tensor:
        """Frames, [rows, *frame], for a tensor [rows, *row]."""
        if self.transposed:
            tensor = tensor.transpose(0, 2, 3, 1)
        frames = tensor.reshape(len(tensor), *self.frame)
        if self._same_numbers:
            return np.array(frames, self.stream_dtype, order="C")
        numbers = frames.astype(np.float64) / self.scale + self.zero_point
        if self.stream_dtype.kind == "u":
            numbers = np.clip(np.rint(numbers), 0, np.iinfo(self.stream_dtype).max)
        return np.array(numbers, self.stream_dtype, order="C")

    def from_stream(self, frames: Tensor) -> Tensor:
        """The tensor [rows, *row] that frames [rows, *frame] stand for."""
        numbers = frames
        if not self._same_numbers:
            numbers = (frames.astype(np.float64) - self.zero_point) * self.scale
        if self.tensor_dtype.kind in "iu" and numbers.dtype.kind == "f":
            limits = np.iinfo(self.tensor_dtype)
            numbers = np.clip(np.rint(numbers), limits.min, limits.max) if limits.bits < 64 else np.rint(numbers)
        if self.transposed:
            channels, height, width = self.row
            numbers = numbers.reshape(len(frames), height, width, channels).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(numbers, self.tensor_dtype).reshape(len(frames), *self.row)

    @property
    def _same_numbers(self) -> bool:
        return (
            self.scale == 1.0
            and self.zero_point == 0.0
            and (self.stream_dtype.kind == "f" or self.stream_dtype == self.tensor_dtype)
        )


def fitted(
    file: str,
    specs: Mapping[str, TensorSpec],
    said: Mapping[str, HailoTensor],
    streams: Sequence[Stream],
) -> dict[str, Conversion]:
    """A conversion for every tensor, by its name.

    Args:
        file: The .hef's name, for sentences.
        specs: The model's inputs, or its outputs.
        said: What the policy file says about them.
        streams: The .hef's inputs, or its outputs.

    Raises:
        BackendUnavailable: They do not fit; the sentence says what to write in the policy file.
    """
    unknown = said.keys() - specs.keys()
    if unknown:
        raise BackendUnavailable(f"The variant of {file} speaks of {min(unknown)!r}, which is no tensor of the model.")
    by_name = {stream.name: stream for stream in streams}
    conversions = {}
    for name, spec in specs.items():
        tensor = said.get(name, HailoTensor())
        stream = by_name.get(tensor.stream or name)
        if stream is None and not tensor.stream and len(streams) == len(specs) == 1:
            stream = streams[0]
        if stream is None:
            raise BackendUnavailable(
                f"{file} has no stream {tensor.stream or name!r}; it has {', '.join(by_name)}. "
                f"Name the one for {name!r} with `stream`."
            )
        conversions[name] = _fitted_one(file, name, spec, tensor, stream)
    return conversions


def _fitted_one(file: str, name: str, spec: TensorSpec, tensor: HailoTensor, stream: Stream) -> Conversion:
    where = (
        f"{file}: {name!r} is {spec.dtype} {list(spec.shape)} in the policy file, and {stream.name} of the .hef takes"
    )
    row = spec.shape[1:]
    if not spec.shape or spec.shape[0] != -1 or -1 in row:
        raise BackendUnavailable(
            f"{file}: {name!r} has shape {list(spec.shape)}; a .hef takes frames of one size, so that the first "
            "dimension must be -1, the number of rows, and the others must be known."
        )
    if stream.is_nms:
        raise BackendUnavailable(
            f"{file}: {stream.name} carries detections, whose number varies; the gateway does not serve those yet. "
            "Compile the .hef without post-processing."
        )
    dtype = DTYPES[spec.dtype]
    if dtype.kind not in "iuf":
        raise BackendUnavailable(f"{where} numbers only.")
    if spec.allow_nonfinite and tensor.format != "float32":
        raise BackendUnavailable(f"{where} whole numbers, which NaN is not: leave allow_nonfinite out, or use float32.")
    transposed = tensor.layout == "nchw"
    as_stream = (row[1], row[2], row[0]) if transposed and len(row) == 3 else row
    fits = math.prod(row) == math.prod(stream.shape) if tensor.layout == "flat" else as_stream == stream.shape
    if not fits:
        raise BackendUnavailable(
            f"{where} frames of {list(stream.shape)} with layout {tensor.layout}. "
            "Layouts are same (as the stream), nchw (channels first) and flat (as many elements)."
        )
    whole = tensor.format != "float32"
    # A tensor of the stream's own type is the chip's numbers already; only what is written in the file changes it.
    own = whole and DTYPES[tensor.format] != dtype
    scale = tensor.scale if tensor.scale is not None else (stream.scale if own else 1.0)
    zero_point = tensor.zero_point if tensor.zero_point is not None else (stream.zero_point if own else 0.0)
    return Conversion(stream.name, stream.shape, row, transposed, DTYPES[tensor.format], dtype, scale, zero_point)
