"""Batches of runs that are too short for a thread: what is ready in the same turn of the event loop shares one.

A lone request is not put off: it runs at once, unless the turn before brought several. Beside what `batch` says of the
requests in a batch, this holds: nobody waits for longer than the turn takes that they came in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backends.batch import Bounds, Member, Queue, Run, run_batch, settle
from backends.turns import Turns
from router.errors import BackendError
from router.model import Tensors
from router.types import Reply


class TurnBatcher(Turns):
    """Runs one model on the event loop, several requests at a time where they come together.

    Args:
        run: Runs the model.
        bounds: How much may share a run.
        clock: Gives monotonic seconds.
    """

    __slots__ = ("_clock", "_queue", "_run")

    def __init__(self, run: Run, bounds: Bounds, clock: Callable[[], float]) -> None:
        super().__init__()
        self._run = run
        self._clock = clock
        self._queue = Queue(bounds, clock)

    async def infer(self, inputs: Tensors, rows: int, size: int, deadline: float) -> Reply:
        """Runs the model on these inputs at the end of this turn, alone or with others.

        Args:
            inputs: The input tensors.
            rows: The first dimension of all of them.
            size: Their size in bytes.
            deadline: Seconds on the batcher's clock; if it passes before the run begins, there is none.

        Raises:
            BackendTimeout: The deadline passed first.
            BackendError: The run failed on these inputs.
        """
        loop = self._loop or self._running_loop()
        promise: asyncio.Future[Reply | BackendError] = loop.create_future()
        self._queue.put(Member(inputs, rows, size, deadline, self._clock(), promise))
        self._gather()
        answer = await promise
        if isinstance(answer, BackendError):
            raise answer
        return answer

    def _end(self) -> None:
        while members := self._queue.take():
            settle(run_batch(members, self._run, None, self._clock))
