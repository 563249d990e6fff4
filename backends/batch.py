"""Requests that share a run of a model: who may join whom, and what becomes of each.

Invariants:
- Only requests whose tensors agree in name, type and every dimension but the first share a run, in the order in which
  they came, up to so many rows and bytes. A request that is larger than that runs whole and by itself.
- Every request learns exactly once what became of it: its own rows, or an error of its own. How another request of the
  same run ends, and whether its caller is still there, changes nothing about that.
- A run of several that fails is made again request by request: only a bad one fails.
- A request whose deadline has passed when its run is due is not run.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from router.errors import BackendError, BackendFailed, BackendTimeout
from router.model import Tensor, Tensors
from router.ports import Call
from router.types import EncodedImage, Reply

log = logging.getLogger(__name__)


class Stop(Protocol):
    """Ends a run when it is set, as ONNX Runtime's RunOptions do."""

    terminate: bool


class Run(Protocol):
    """Runs the model once."""

    def __call__(self, inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
        """Blocks until it has run.

        Args:
            inputs: The input tensors.
            size: Their size in bytes.
            stop: Ends the run early when it is set; None where nobody could set it meanwhile.

        Returns:
            The outputs, and the seconds that the run took.

        Raises:
            BackendError: It failed, or was stopped.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may share a run.

    Args:
        rows: Rows; 1 lets every request run by itself.
        size: Bytes of input.
    """

    rows: int
    size: int


class Promise(Protocol):
    """Where somebody waits for an answer, as asyncio's futures do it."""

    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def done(self) -> bool:
        """Whether nobody waits any more, or it was given."""
        ...

    def set_result(self, result: Reply | BackendError) -> None:
        """Gives the answer."""
        ...


class Kept:
    """An answer that whoever asked looks up afterwards: nobody can leave before it is there."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Reply | BackendError

    def cancelled(self) -> bool:
        """Never."""
        return False

    def done(self) -> bool:
        """Whether it is there."""
        return hasattr(self, "value")

    def set_result(self, result: Reply | BackendError) -> None:
        """Keeps it."""
        self.value = result


class Member:
    """One request."""

    __slots__ = ("answer", "asked", "deadline", "inputs", "late", "rows", "size")

    def __init__(
        self,
        inputs: Tensors,
        rows: int,
        size: int,
        deadline: float,
        asked: float,
        answer: Promise,
        late: Callable[[float], None] | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.size = size
        self.deadline = deadline
        self.asked = asked
        self.late = late
        # An error is a value here: an exception that nobody fetches, as of a caller who just left, would be logged.
        self.answer = answer


Answered = tuple[Member, Reply | BackendError]


class Queue:
    """Requests that wait for a run.

    Args:
        bounds: How much may share one.
        clock: Gives monotonic seconds.
    """

    __slots__ = ("_clock", "_members", "bounds")

    def __init__(self, bounds: Bounds, clock: Callable[[], float]) -> None:
        self.bounds = bounds
        self._clock = clock
        self._members: deque[Member] = deque()

    def __len__(self) -> int:
        return len(self._members)

    def put(self, member: Member) -> None:
        """Adds one more."""
        self._members.append(member)

    def take(self) -> list[Member]:
        """Takes those out of the queue who share the next run: the first who still waits, and who may join it."""
        now = self._clock()
        first = self._first(now)
        if first is None:
            return []
        members, rows, size = [first], first.rows, first.size
        if not self._members:
            return members
        left = deque[Member]()
        bounds = self.bounds
        while self._members and rows < bounds.rows:
            member = self._first(now)
            if member is None:
                break
            if (
                rows + member.rows <= bounds.rows
                and size + member.size <= bounds.size
                and _alike(member.inputs, first.inputs)
            ):
                members.append(member)
                rows += member.rows
                size += member.size
            else:
                left.append(member)
        left.extend(self._members)
        self._members = left
        return members

    def _first(self, now: float) -> Member | None:
        """Takes the first who still waits, and has time left, out of the queue."""
        while self._members:
            member = self._members.popleft()
            if member.answer.cancelled():
                continue
            if member.deadline > now:
                return member
            member.answer.set_result(_too_late())
        return None


def run_now(
    calls: Sequence[Call], deadlines: Sequence[float], run: Run, bounds: Bounds, clock: Callable[[], float]
) -> list[Reply | BackendError]:
    """Runs the model on each of these before it returns, on several at a time where they may share a run.

    Args:
        calls: Their payloads are tensors.
        deadlines: Of each, seconds on the clock; if it has passed when its run is due, there is none.
        run: Runs the model.
        bounds: How much may share a run.
        clock: Gives seconds.

    Returns:
        What came of each, in the same order.
    """
    asked = clock()
    queue = Queue(bounds, clock)
    answers = []
    for call, deadline in zip(calls, deadlines, strict=True):
        inputs, kept = call.payload, Kept()
        assert not isinstance(inputs, EncodedImage)
        answers.append(kept)
        queue.put(Member(inputs, call.rows, call.payload_bytes, deadline, asked, kept))
    while members := queue.take():
        settle(run_batch(members, run, None, clock))
    return [kept.value for kept in answers]


def run_batch(members: Iterable[Member], run: Run, stop: Stop | None, clock: Callable[[], float]) -> list[Answered]:
    """Runs a batch for those who still wait. Blocking.

    Args:
        members: Who shares the run.
        run: Runs the model.
        stop: Ends it early when it is set.
        clock: Gives monotonic seconds.

    Returns:
        What became of each; those who went away are left out.
    """
    now = clock()
    waiting = [member for member in members if not member.answer.cancelled()]
    if len(waiting) > 1 and min([member.deadline for member in waiting]) > now:
        with contextlib.suppress(Exception):  # whatever it is, it shows again when the one to blame runs alone
            return _together(waiting, run, stop, clock)
    return [(member, _alone(member, run, stop, clock)) for member in waiting if not member.answer.cancelled()]


def settle(answered: Iterable[Answered]) -> None:
    """Tells everybody who still waits what became of them."""
    for member, answer in answered:
        if not member.answer.cancelled():
            member.answer.set_result(answer)


def _together(members: Sequence[Member], run: Run, stop: Stop | None, clock: Callable[[], float]) -> list[Answered]:
    began = clock()
    inputs = {name: np.concatenate([member.inputs[name] for member in members]) for name in members[0].inputs}
    outputs, took_s = run(inputs, sum([member.size for member in members]), stop)
    rows = sum([member.rows for member in members])
    for tensor in outputs.values():
        if len(tensor) != rows:
            raise BackendFailed(f"The model did not give {rows} rows for {rows}.")
    answered: list[Answered] = []
    begin = 0
    for member in members:
        end = begin + member.rows
        own: dict[str, Tensor] = {}
        for name, tensor in outputs.items():
            own[name] = tensor[begin:end]
        answered.append((member, Reply(own, began - member.asked, 0.0, took_s)))
        begin = end
    return answered


def _alone(member: Member, run: Run, stop: Stop | None, clock: Callable[[], float]) -> Reply | BackendError:
    began = clock()
    if member.deadline <= began:
        return _too_late()
    try:
        outputs, took_s = run(member.inputs, member.size, stop)
    except BackendError as error:
        return error
    except Exception as error:  # whoever waits must hear of it
        log.exception("a run failed in a way that nobody foresaw")
        return BackendFailed(f"A run could not be made: {error}")
    return Reply(outputs, began - member.asked, 0.0, took_s)


def _alike(one: Tensors, other: Tensors) -> bool:
    """Whether two requests may share a run: their tensors differ in the number of rows alone."""
    if one.keys() != other.keys():
        return False
    for name, tensor in one.items():
        peer = other[name]
        if tensor.shape[1:] != peer.shape[1:] or tensor.dtype != peer.dtype:
            return False
    return True


def _too_late() -> BackendTimeout:
    return BackendTimeout("The deadline passed before the model could run.")
