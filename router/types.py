"""The values everything speaks: what a model takes and gives, a request, an attempt, an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from router.errors import InvalidTensor, Outcome
from router.stages import Decode, Stage

Tensor = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, Tensor]

ON_PREMISES: Final = "on-premises"
"""The one site that data does not leave: bytes sent to any other site are counted as bytes out."""

UNCLASSIFIED: Final = "unclassified"
"""The data class of a request that names none."""

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
} | {"string": np.dtype(object)}
"""The element types that a policy file can name; `string` is variable-length bytes or text."""


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
        if tensor.dtype != DTYPES[self.dtype]:
            raise InvalidTensor(f"{field} has dtype {tensor.dtype}; it must be {self.dtype}.", field=field)
        if not self.accepts(tensor.shape):
            raise InvalidTensor(
                f"{field} has shape {list(tensor.shape)}; it must be {list(self.shape)}"
                f"{', where -1 is any size of at least 1' if -1 in self.shape else ''}.",
                field=field,
            )
        if tensor.dtype.kind == "f" and not self.allow_nonfinite and not np.isfinite(tensor).all():
            raise InvalidTensor(
                f"{field} holds a value that is NaN, infinite or too large for {self.dtype}; "
                "this model takes finite numbers only.",
                field=field,
            )


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
    """

    name: str
    version: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    confidence_output: str | None = None
    image: ImageSpec | None = None

    @property
    def batchable(self) -> bool:
        """Whether the first dimension of every tensor is a row count, so that rows can be split and merged."""
        specs = (*self.inputs.values(), *self.outputs.values())
        return all(spec.shape and spec.shape[0] == -1 for spec in specs)

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


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file as it was received.

    Args:
        content: The file's bytes.
        media_type: Its media type, such as `image/png`.
    """

    content: bytes
    media_type: str


Payload = Tensors | EncodedImage


def nbytes(payload: Payload) -> int:
    """Size in bytes of what would cross the network if this payload were sent."""
    if isinstance(payload, EncodedImage):
        return len(payload.content)
    return sum(
        tensor.nbytes if tensor.dtype != object else sum(4 + len(item) for item in tensor.flat)
        for tensor in payload.values()
    )


def row_count(payload: Payload, model: ModelSpec) -> int:
    """How many inferences the payload asks for: its rows where the model is batchable, else one."""
    if isinstance(payload, EncodedImage) or not model.batchable:
        return 1
    return int(next(iter(payload.values())).shape[0])


class Priority(IntEnum):
    """How urgent a request is: who waits longer and is refused first when there is more to do than can be done.

    Its name in JSON is the lower-case one.
    """

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(slots=True)
class InferenceRequest:
    """One request, checked at the door.

    Args:
        id: The caller's id, or one made for it; echoed, never interpreted.
        model: Name of the model.
        payload: The input tensors (dtypes and shapes checked), or an image for the model's stages.
        payload_bytes: Its size.
        data_class: What kind of data it carries; decides where it may go.
        arrived: When its first byte came, seconds on the engine's monotonic clock.
        deadline: By when the answer must be there, same clock; None takes the model's own.
        priority: Who goes first when a backend is busy.
        parameters: The caller's parameters for the backend.
    """

    id: str
    model: str
    payload: Payload
    payload_bytes: int
    data_class: str
    arrived: float
    deadline: float | None = None
    priority: Priority = Priority.NORMAL
    parameters: Mapping[str, object] = field(default_factory=dict)


class Facts(NamedTuple):
    """What a policy may know of a request: small, hashable, of few distinct values, so that plans can be cached.

    `payload_bytes` is rounded up to a power of two; `encoded_image` says that stages have to run somewhere.
    """

    model: str
    data_class: str
    payload_bytes: int
    encoded_image: bool


def round_up_to_power_of_two(size: int) -> int:
    """The smallest power of two that is at least `size` (and at least 1)."""
    return 1 << max(0, size - 1).bit_length()


@dataclass(slots=True)
class Reply:
    """What a backend gives back for one call.

    Args:
        outputs: The model's output tensors.
        queue_s: Seconds it waited before work on it began.
        network_s: Seconds spent on the way there and back; 0 on the device.
        compute_s: Seconds of work.
    """

    outputs: dict[str, Tensor]
    queue_s: float
    network_s: float
    compute_s: float


Role = Literal["first", "fallback", "retry", "hedge"]
"""What an attempt is to those before it: a hedge begins beside one that is still under way."""


@dataclass(slots=True)
class AttemptRecord:
    """One attempt as it went: what the route reports and the estimators learn from.

    `error` is the code of the error that ended it, `unconfident` for an answer that was not final, or None. `role` says
    what it was to the attempts before it. Times are seconds; `payload_bytes` is what the backend was handed,
    `bytes_out` what of it left the premises.
    """

    backend: str
    outcome: Outcome
    error: str | None = None
    queue_s: float = 0.0
    network_s: float = 0.0
    compute_s: float = 0.0
    stages_s: float = 0.0
    site: str = ""
    payload_bytes: int = 0
    bytes_out: int = 0
    cost_usd: float = 0.0
    role: Role = "first"


@dataclass(slots=True)
class Route:
    """The way a request took.

    Args:
        policy: Name of the policy that planned it.
        backend: The backend whose answer it is; of a cascade, the last one that gave rows of it.
        variant: The model's variant on that backend.
        degraded: Whether the answer is a lesser one than the policy would have liked to give.
        reason: Why it went this way, for a person.
        attempts: Every attempt, in order.
        latency_s: Seconds from the first byte of the request to the end of execution.
    """

    policy: str
    backend: str
    variant: str
    degraded: bool
    reason: str
    attempts: list[AttemptRecord]
    latency_s: float

    @property
    def cost_usd(self) -> float:
        """What all attempts cost together, abandoned ones included."""
        return sum(attempt.cost_usd for attempt in self.attempts)

    @property
    def bytes_out(self) -> int:
        """Bytes that left the premises, by all attempts together."""
        return sum(attempt.bytes_out for attempt in self.attempts)


@dataclass(slots=True)
class InferenceResponse:
    """The answer: the model's outputs and the route that they took."""

    id: str
    model: ModelSpec
    outputs: dict[str, Tensor]
    route: Route
