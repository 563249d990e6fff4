"""Batches of runs that are too short for a thread: what is ready in the same turn of the event loop shares one.

A lone request is not put off: it runs at once, unless the turn before brought several. Beside what `batch` says of the
requests in a batch, this holds: nobody waits for longer than the turn takes that they came in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backends.batch import Bounds, Member, Queue, Run, run_batch, settle
from router.errors import BackendError
from router.model import Tensors
from router.types import Reply


class TurnBatcher:
    """Runs one model on the event loop (always the same), several requests at a time where they come together.

    Args:
        run: Runs the model.
        bounds: How much may share a run.
        clock: Gives monotonic seconds.
    """

    __slots__ = ("_clock", "_crowded", "_due", "_gathered", "_loop", "_queue", "_run")

    def __init__(self, run: Run, bounds: Bounds, clock: Callable[[], float]) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._run = run
        self._clock = clock
        self._queue = Queue(bounds, clock)
        self._gathered = 0
        self._crowded = False
        self._due = False

    def alone(self) -> bool:
        """Whether the request that asks had better run at once: nobody came with it, nor several just before it."""
        if self._crowded or self._due:
            return False
        self._end_turn_later()
        return True

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
        member = Member(inputs, rows, size, deadline, self._clock(), loop.create_future())
        self._queue.put(member)
        self._gathered += 1
        if not self._due:
            self._end_turn_later()
        answer = await member.answer
        if isinstance(answer, BackendError):
            raise answer
        return answer

    def _end_turn_later(self) -> None:
        self._due = True
        (self._loop or self._running_loop()).call_soon(self._end_turn)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all requests come on: kept, since up to Python 3.11 each look for it is a system call."""
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _end_turn(self) -> None:
        self._due = False
        self._crowded = self._gathered > 1
        self._gathered = 0
        while members := self._queue.take():
            settle(run_batch(members, self._run, None, self._clock))
