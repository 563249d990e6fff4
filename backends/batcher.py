"""Batches of runs in threads, without a wait: what queued while a run was under way makes up the next one.

There is no timer. Beside what `batch` says of the requests in a batch, these hold:
- One run is under way at a time. A request that finds none starts one at once, by itself.
- A run that nobody waits for any more is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from backends.batch import Answered, Bounds, Member, Queue, Run, Stop, run_batch, settle
from router.errors import BackendError, BackendFailed, BackendUnavailable
from router.model import Tensors
from router.types import Reply


class _Batch:
    """Requests that share a run."""

    __slots__ = ("members", "stop")

    def __init__(self, members: Sequence[Member], stop: Stop) -> None:
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
        self._run = run
        self._new_stop = new_stop
        self._threads = threads
        self._clock = clock
        self._queue = Queue(bounds, clock)
        self._under_way: _Batch | None = None

    @property
    def idle(self) -> bool:
        """Whether no run is under way; nothing queues then either."""
        return self._under_way is None

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
        promise: asyncio.Future[Reply | BackendError] = asyncio.get_running_loop().create_future()
        self._queue.put(Member(inputs, rows, size, deadline, self._clock(), promise))
        if self._under_way is None:
            self._begin()
        try:
            answer = await promise
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
        while members := self._queue.take():
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
        settle(answered)
        self._begin()

    def _work(self, batch: _Batch) -> list[Answered]:
        """Runs a batch, in a thread, for those who still wait when the thread gets to it."""
        return run_batch(batch.members, self._run, batch.stop, self._clock)
