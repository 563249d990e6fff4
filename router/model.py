"""What a model takes and gives: its tensors, and how an image becomes one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import ml_dtypes
import numpy as np

from router.errors import InvalidTensor
from router.stages import Decode, Stage

Tensor = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, Tensor]

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
} | {"bfloat16": np.dtype(ml_dtypes.bfloat16), "string": np.dtype(object)}
"""The element types that a policy file can name; `string` is variable-length bytes or text."""

SMALL: Final = 4096
"""Elements of a tensor for which it is the number of calls that counts, not what they do."""

_FLOATING: Final = "fV"
"""numpy's letters for floating point; V is bfloat16, which numpy does not have of its own."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What one tensor of a model looks like.

    Args:
        dtype: A key of `DTYPES`.
        shape: The sizes of its dimensions; -1 accepts any size of at least one.
        allow_nonfinite: Whether NaN and the infinities are values like any other.
    """

    dtype: str
    shape: tuple[int, ...]
    allow_nonfinite: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}; known are {', '.join(DTYPES)}")
        if any(size < 1 and size != -1 for size in self.shape):
            raise ValueError(f"a dimension is -1 (any) or at least 1, not {list(self.shape)}")

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape fits."""
        if len(shape) != len(self.shape):
            return False
        for actual, wanted in zip(shape, self.shape, strict=True):
            if actual != wanted and (wanted != -1 or actual < 1):
                return False
        return True

    def check(self, tensor: Tensor, field: str) -> None:
        """Raises InvalidTensor, naming `field`, unless dtype, shape and values are what the model takes."""
        dtype = DTYPES[self.dtype]
        if tensor.dtype is not dtype and tensor.dtype != dtype:
            raise InvalidTensor(f"{field} has dtype {tensor.dtype}; it must be {self.dtype}.", field=field)
        if not self.accepts(tensor.shape):
            raise InvalidTensor(
                f"{field} has shape {list(tensor.shape)}; it must be {list(self.shape)}"
                f"{', where -1 is any size of at least 1' if -1 in self.shape else ''}.",
                field=field,
            )
        finite_only = dtype.kind in _FLOATING and not self.allow_nonfinite
        if finite_only and not _all_finite(tensor):
            raise InvalidTensor(
                f"{field} holds a value that is NaN, infinite or too large for {self.dtype}; "
                "this model takes finite numbers only.",
                field=field,
            )


def _all_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    # One call for a small tensor: squares cannot cancel each other out, and a sum that overflows is looked at again.
    if tensor.size <= SMALL and tensor.dtype.itemsize >= 4 and math.isfinite(np.vdot(tensor, tensor)):
        return True
    return bool(np.logical_and.reduce(np.isfinite(tensor), axis=None))


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How an encoded image becomes one of a model's inputs.

    Args:
        input: The name of the input tensor that the stages produce.
        stages: The stages in order; the first one decodes, and no other does.
    """

    input: str
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if [isinstance(stage, Decode) for stage in self.stages] != [True] + [False] * (len(self.stages) - 1):
            raise ValueError("the first stage, and no other, is decode")

    @property
    def decode(self) -> Decode:
        """The first stage."""
        assert isinstance(self.stages[0], Decode)
        return self.stages[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names, as they stand in plans and explanations."""
        return tuple(stage.stage for stage in self.stages)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as applications see it, whichever backend answers.

    Args:
        name: The name that requests use.
        version: The version that Open Inference Protocol clients may ask for.
        inputs: The input tensors by name.
        outputs: The output tensors by name.
        confidence_output: The output whose greatest value along the last axis is a row's confidence, if any.
        image: How an image file is fed to it, if it can be.

    Attributes:
        batchable: Whether the first dimension of every tensor is a row count, so that rows can be split and merged.
    """

    name: str
    version: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    confidence_output: str | None = None
    image: ImageSpec | None = None
    batchable: bool = field(init=False)

    def __post_init__(self) -> None:
        specs = (*self.inputs.values(), *self.outputs.values())
        object.__setattr__(self, "batchable", all(spec.shape and spec.shape[0] == -1 for spec in specs))

    def synthetic_inputs(self) -> dict[str, Tensor]:
        """The smallest inputs that it takes, all zeros or empty strings: for probes, so that no user's data is used."""
        inputs = {}
        for name, spec in self.inputs.items():
            shape = tuple(1 if size == -1 else size for size in spec.shape)
            inputs[name] = (
                np.full(shape, b"", object) if spec.dtype == "string" else np.zeros(shape, DTYPES[spec.dtype])
            )
        return inputs

    def check_inputs(self, tensors: Tensors) -> None:
        """Raises InvalidTensor unless exactly the model's inputs are there and all agree on the row count."""
        for name in self.inputs:
            if name not in tensors:
                known = ", ".join(self.inputs)
                raise InvalidTensor(f"inputs.{name} is missing; {self.name} takes {known}.", field=f"inputs.{name}")
        rows = -1
        for name, tensor in tensors.items():
            spec = self.inputs.get(name)
            if spec is None:
                known = ", ".join(self.inputs)
                raise InvalidTensor(
                    f"inputs.{name} is not an input of {self.name}, which takes {known}.", field=f"inputs.{name}"
                )
            spec.check(tensor, f"inputs.{name}")
            if spec.shape and spec.shape[0] == -1:
                if rows not in (-1, tensor.shape[0]):
                    raise InvalidTensor(
                        f"inputs.{name} has {tensor.shape[0]} rows, another input has {rows}; they must agree.",
                        field=f"inputs.{name}",
                    )
                rows = tensor.shape[0]
