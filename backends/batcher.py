"""Batches without a wait: what queued while a run was under way makes up the next one. There is no timer.

Invariants:
- One run is under way at a time. A request that finds none starts one at once, by itself.
- Every request learns exactly once what became of it: its own rows, or an error of its own. How another request of the
  same run ends, and whether its caller is still there, changes nothing about that.
- Only requests whose tensors agree in name, type and every dimension but the first share a run, in the order in which
  they came, up to so many rows and bytes. A request that is larger than that runs whole and by itself.
- A run of several that fails is made again request by request: only a bad one fails.
- A request whose deadline has passed when its run is due is not run. A run that nobody waits for any more is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from router.errors import BackendError, BackendFailed, BackendTimeout, BackendUnavailable
from router.model import Tensor, Tensors
from router.types import Reply


class Stop(Protocol):
    """Ends a run when it is set, as ONNX Runtime's RunOptions do."""

    terminate: bool


class Run(Protocol):
    """Runs the model once."""

    def __call__(self, inputs: Tensors, size: int, stop: Stop) -> tuple[dict[str, Tensor], float]:
        """Blocking; called in a thread.

        Args:
            inputs: The input tensors.
            size: Their size in bytes.
            stop: Ends the run early when it is set.

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


class _Member:
    """One request."""

    __slots__ = ("answer", "asked", "deadline", "inputs", "rows", "size")

    def __init__(self, inputs: Tensors, rows: int, size: int, deadline: float, asked: float) -> None:
        self.inputs = inputs
        self.rows = rows
        self.size = size
        self.deadline = deadline
        self.asked = asked
        # An error is a value here: an exception that nobody fetches, as of a caller who just left, would be logged.
        self.answer: asyncio.Future[Reply | BackendError] = asyncio.get_running_loop().create_future()


Answered = tuple[_Member, Reply | BackendError]


class _Batch:
    """Requests that share a run."""

    __slots__ = ("members", "stop")

    def __init__(self, members: list[_Member], stop: Stop) -> None:
        self.members = members
        self.stop = stop

    def stop_if_deserted(self) -> None:
        """Ends the run if nobody waits for it any more. The thread itself does not hear of cancelled callers."""
        if all(member.answer.cancelled() for member in self.members):
            self.stop.terminate = True


class Batcher:
    """Runs one model in threads, several requests at a time where they come faster than it is.

    Args:
        run: Runs the model.
        new_stop: Makes what stops a run.
        threads: Where runs are made.
        bounds: How much may share a run.
        clock: Gives monotonic seconds.

    """

    def __init__(
        self,
        run: Run,
        new_stop: Callable[[], Stop],
        threads: Executor,
        bounds: Bounds,
        clock: Callable[[], float],
    ) -> None:
        self._bounds = bounds
        self._run = run
        self._new_stop = new_stop
        self._threads = threads
        self._clock = clock
        self._queue: deque[_Member] = deque()
        self._under_way: _Batch | None = None

    @property
    def idle(self) -> bool:
        """Whether no run is under way and nothing queues."""
        return self._under_way is None and not self._queue

    async def infer(self, inputs: Tensors, rows: int, size: int, deadline: float) -> Reply:
        """Runs the model on these inputs, alone or with others.

        Args:
            inputs: The input tensors.
            rows: The first dimension of all of them.
            size: Their size in bytes.
            deadline: Seconds on the batcher's clock; if it passes before the run begins, there is none.

        Raises:
            BackendTimeout: The deadline passed first.
            BackendError: The run failed on these inputs.
        """
        member = _Member(inputs, rows, size, deadline, self._clock())
        self._queue.append(member)
        if self._under_way is None:
            self._begin()
        try:
            answer = await member.answer
        except asyncio.CancelledError:
            if self._under_way is not None:
                self._under_way.stop_if_deserted()
            raise
        if isinstance(answer, BackendError):
            raise answer
        return answer

    def _begin(self) -> None:
        """Starts a run of what queues, if anything does."""
        self._under_way = None
        while members := self._next():
            batch = _Batch(members, self._new_stop())
            try:
                job = asyncio.get_running_loop().run_in_executor(self._threads, self._work, batch)
            except RuntimeError as error:  # what executors raise after their shutdown
                for member in members:
                    member.answer.set_result(BackendUnavailable(f"The model was closed: {error}"))
            else:
                self._under_way = batch
                job.add_done_callback(self._ended)
                return

    def _next(self) -> list[_Member]:
        """Takes those out of the queue who share the next run: the first who still waits, and who may join it."""
        first = self._first()
        if first is None:
            return []
        members, rows, size = [first], first.rows, first.size
        if not self._queue:
            return members
        form, left = _form(first.inputs), deque[_Member]()
        bounds = self._bounds
        while self._queue and rows < bounds.rows:
            member = self._first()
            if member is None:
                break
            if rows + member.rows <= bounds.rows and size + member.size <= bounds.size and _form(member.inputs) == form:
                members.append(member)
                rows += member.rows
                size += member.size
            else:
                left.append(member)
        left.extend(self._queue)
        self._queue = left
        return members

    def _first(self) -> _Member | None:
        """Takes the first who still waits, and has time left, out of the queue."""
        now = self._clock()
        while self._queue:
            member = self._queue.popleft()
            if member.answer.cancelled():
                continue
            if member.deadline > now:
                return member
            member.answer.set_result(_too_late())
        return None

    def _ended(self, job: asyncio.Future[list[Answered]]) -> None:
        """Tells everybody what a run came to, and starts the next one."""
        batch = self._under_way
        assert batch is not None, "it is under way until its job has ended"
        if job.cancelled():
            answered: list[Answered] = [
                (member, BackendUnavailable("The model was closed.")) for member in batch.members
            ]
        elif (error := job.exception()) is not None:
            answered = [(member, BackendFailed(f"A run could not be made: {error}")) for member in batch.members]
        else:
            answered = job.result()
        for member, answer in answered:
            if not member.answer.cancelled():
                member.answer.set_result(answer)
        self._begin()

    def _work(self, batch: _Batch) -> list[Answered]:
        """Runs a batch, in a thread, for those who still wait when the thread gets to it."""
        now = self._clock()
        waiting = [member for member in batch.members if not member.answer.cancelled()]
        if len(waiting) > 1 and all(member.deadline > now for member in waiting):
            with contextlib.suppress(Exception):  # whatever it is, it shows again when the one to blame runs alone
                return self._together(waiting, batch.stop)
        return [(member, self._alone(member, batch.stop)) for member in waiting if not member.answer.cancelled()]

    def _together(self, members: list[_Member], stop: Stop) -> list[Answered]:
        began = self._clock()
        inputs = {name: np.concatenate([member.inputs[name] for member in members]) for name in members[0].inputs}
        outputs, took_s = self._run(inputs, sum(member.size for member in members), stop)
        rows = sum(member.rows for member in members)
        if any(len(tensor) != rows for tensor in outputs.values()):
            raise BackendFailed(f"The model did not give {rows} rows for {rows}.")
        answered: list[Answered] = []
        at = 0
        for member in members:
            own = {name: tensor[at : at + member.rows] for name, tensor in outputs.items()}
            answered.append((member, Reply(own, began - member.asked, 0.0, took_s)))
            at += member.rows
        return answered

    def _alone(self, member: _Member, stop: Stop) -> Reply | BackendError:
        began = self._clock()
        if member.deadline <= began:
            return _too_late()
        try:
            outputs, took_s = self._run(member.inputs, member.size, stop)
        except BackendError as error:
            return error
        return Reply(outputs, began - member.asked, 0.0, took_s)


def _form(inputs: Tensors) -> list[tuple[str, object, tuple[int, ...]]]:
    """What two requests must agree in to share a run."""
    return sorted((name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in inputs.items())


def _too_late() -> BackendTimeout:
    return BackendTimeout("The deadline passed before the model could run.")
