"""What the backends that ask a server share: a model on it, rows in parts, times, outputs held against the spec."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from backends.oip import datatype
from router.errors import BackendFailed, BackendRejectedInput
from router.model import ModelSpec, Tensor, Tensors, TensorSpec
from router.types import Reply

MAX_BATCHES_AT_ONCE = 16
"""Requests that a large batch is sent as at a time: enough to keep a server's own batching busy."""

MAX_BATCHES = 256
"""Requests that one batch may be sent as; a larger one is the caller's to divide."""

MAX_MESSAGE_BYTES = 64 << 20
"""Largest message to or from a server."""

ABANDONED_FOR_S = 2.0
"""How long after its deadline an inference is left to end by itself before it is cancelled on the server: a line that
has become too thin for a payload shows in how late the answer comes."""

CLOSE_GRACE_S = 1.0
"""Longest that closing waits for inferences that nobody waits for any more."""

RENEW_AFTER = 3
"""Probes in a row that find nobody there before the connection is replaced."""

T = TypeVar("T")

Late = Callable[[float], None]
"""Told the seconds that an answer took for which nobody waits any more."""


@dataclass(frozen=True, slots=True)
class EncodedImageModel:
    """A model on the server that takes the image file itself, and runs the stages there.

    Args:
        name: Its name on the server.
        input: Its input, BYTES [N, 1].
    """

    name: str
    input: str = "image"


@dataclass(frozen=True, slots=True)
class ServerVariant:
    """A model on the server.

    Args:
        name: Its name on the server.
        version: Its version on the server; empty lets the server choose.
        encoded_image: The model to send image files to, if the server has one.
    """

    name: str
    version: str = ""
    encoded_image: EncodedImageModel | None = None

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name}:{self.version}" if self.version else self.name

    @property
    def takes_image(self) -> bool:
        """Whether image files may be sent as they are."""
        return self.encoded_image is not None


class Parts:
    """Sends more rows than a server takes at a time as several requests at once.

    Args:
        model: The model's spec.
        label: The model's name in errors.

    Attributes:
        most: Rows that the server takes at a time; 0 is any number.
    """

    def __init__(self, model: ModelSpec, label: str) -> None:
        self.most = 0
        self._model = model
        self._batchable = model.batchable
        self._label = label
        self._turns = asyncio.Semaphore(MAX_BATCHES_AT_ONCE)

    async def ask(
        self,
        ask: Callable[[Tensors, Late | None], Awaitable[dict[str, Tensor]]],
        tensors: Tensors,
        late: Late | None,
    ) -> dict[str, Tensor]:
        """The outputs of all rows, in order.

        Args:
            ask: Asks the server for so many rows as it takes.
            tensors: The inputs.
            late: Handed to the last part, which speaks for all.

        Raises:
            BackendRejectedInput: There are too many rows even so.
            BackendError: The first that a part ended in; the others are abandoned.
        """
        rows, most = len(next(iter(tensors.values()))) if self._batchable else 1, self.most
        if not 0 < most < rows:
            return await ask(tensors, late)
        if rows > most * MAX_BATCHES:
            raise BackendRejectedInput(
                f"{self._label} takes {most} rows at a time, and {rows} are too many for one request."
            )

        async def in_turn(at: int) -> dict[str, Tensor]:
            part = {name: tensor[at : at + most] for name, tensor in tensors.items()}
            async with self._turns:
                return await ask(part, late if at + most >= rows else None)

        parts = await together(*(in_turn(at) for at in range(0, rows, most)))
        return {name: np.concatenate([part[name] for part in parts]) for name in self._model.outputs}


class Totals(NamedTuple):
    """What a server says it has served of one version of a model: requests, rows, nanoseconds in queue and compute."""

    requests: int
    rows: int
    queue_ns: int
    compute_ns: int


class Served:
    """What a server says it has served of one model since it started, and the means since it was asked before.

    No server says what a single request cost it. Its statistics do for all of them together, so a probe reads those,
    and a reply's queue and compute time are the server's means since the probe before.

    Attributes:
        row_s: Mean seconds in compute of a row; None where it is not known.
    """

    __slots__ = ("_before", "_means", "row_s")

    def __init__(self) -> None:
        self._before = Totals(0, 0, 0, 0)
        self._means: tuple[float, float] | None = None
        self.row_s: float | None = None

    def means(self, otherwise_s: float) -> tuple[float, float]:
        """Mean seconds in queue and in compute of a request; no queue and `otherwise_s` where none are known."""
        return (0.0, otherwise_s) if self._means is None else self._means

    def learn(self, totals: Iterable[Totals]) -> None:
        """Takes in the totals of each version. A server that started anew counts from zero again."""
        now, before = Totals(*(sum(column) for column in zip((0, 0, 0, 0), *totals, strict=True))), self._before
        requests, rows = now.requests - before.requests, now.rows - before.rows
        queue_s, compute_s = (now.queue_ns - before.queue_ns) / 1e9, (now.compute_ns - before.compute_ns) / 1e9
        if requests > 0:
            self._means = queue_s / requests, compute_s / requests
        if rows > 0:
            self.row_s = compute_s / rows
        self._before = now

    def reply(self, outputs: dict[str, Tensor], elapsed_s: float, rtt_s: float) -> Reply:
        """A reply that took so long: what the server's means do not account for is the network's.

        Until there are such means, all but the round trip counts as compute.
        """
        queue, compute = self.means(max(0.0, elapsed_s - rtt_s))
        compute = min(elapsed_s, compute)
        queue = min(elapsed_s - compute, queue)
        return Reply(outputs, queue, elapsed_s - compute - queue, compute)


def fitting_shape(name: str, spec: TensorSpec, answered: str, shape: tuple[int, ...], label: str) -> tuple[int, ...]:
    """The shape that an output has by its spec. Servers keep a batch dimension that it may not have: [N, 1] for [N].

    Args:
        name: Of the output.
        spec: What the policy file says of it.
        answered: The datatype that the server says it has.
        shape: The shape that the server says it has.
        label: The model's name in errors.

    Raises:
        BackendFailed: It is not what the spec says.
    """
    given = shape
    if len(shape) == len(spec.shape) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    if datatype(spec.dtype) != answered or not spec.accepts(shape) or min(shape, default=1) < 1:
        raise BackendFailed(
            f"{label} answered {name} as {answered[:40]} {list(given)[:16]}; "
            f"the policy file says {spec.dtype} {list(spec.shape)}."
        )
    return shape


def refuse_missing(outputs: dict[str, Tensor], model: ModelSpec, label: str) -> None:
    """Raises BackendFailed unless all the outputs that the model's spec names are there."""
    missing = model.outputs.keys() - outputs.keys()
    if missing:
        raise BackendFailed(f"{label} did not answer {', '.join(sorted(missing))}.")


def seconds_until(deadline: float) -> float:
    """Seconds from now, never negative."""
    return max(0.0, deadline - time.monotonic())


async def together(*asked: Coroutine[Any, Any, T]) -> list[T]:
    """Awaits all at once; when one fails, cancels the others, and raises its error once they have ended.

    A TaskGroup does the same, but one that fails leaves its task counted as being cancelled in Python 3.11, and whoever
    asks the task afterwards takes the failure for a cancellation.
    """
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
