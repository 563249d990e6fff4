"""The values everything speaks: a request, what a policy may know of it, an attempt, an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Literal, NamedTuple

from router.errors import Outcome
from router.model import ModelSpec, Tensor, Tensors

ON_PREMISES: Final = "on-premises"
"""The one site that data does not leave: bytes sent to any other site are counted as bytes out."""

UNCLASSIFIED: Final = "unclassified"
"""The data class of a request that names none."""


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
    size = 0
    for tensor in payload.values():
        size += sum(4 + len(item) for item in tensor.flat) if tensor.dtype.hasobject else tensor.nbytes
    return size


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
    return 1 << (size - 1).bit_length() if size else 1


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
        total = 0.0
        for attempt in self.attempts:
            total += attempt.cost_usd
        return total

    @property
    def bytes_out(self) -> int:
        """Bytes that left the premises, by all attempts together."""
        total = 0
        for attempt in self.attempts:
            total += attempt.bytes_out
        return total


@dataclass(slots=True)
class InferenceResponse:
    """The answer: the model's outputs and the route that they took."""

    id: str
    model: ModelSpec
    outputs: dict[str, Tensor]
    route: Route
