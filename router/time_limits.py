"""Time limits that cost nothing where there is nothing to wait for, and next to nothing where the wait is short.

They end like `asyncio.timeout`: what is awaited is cancelled and a TimeoutError raised, while a cancellation that
came from elsewhere stays one. That of the standard library takes a timer and two coroutines for each limit, which is
more than a local model's whole run.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

from router.lingering import GRACE_S, Lingering

T = TypeVar("T")


class _Limit:
    """One limit: whom it ends, and when on the loop's clock."""

    __slots__ = ("_taken_back", "cancelling", "expired", "task", "timer", "when")

    def __init__(self, task: asyncio.Task[Any], when: float) -> None:
        self.task = task
        self.cancelling = task.cancelling()
        self.when = when
        self.expired = False
        self._taken_back = False
        self.timer: asyncio.TimerHandle | None = None

    def expire(self) -> None:
        """Ends the wait."""
        if not self.expired:
            self.expired = True
            self.task.cancel()

    def is_over(self) -> bool:
        """Whether it expired; its cancellation is taken back, once."""
        if self.expired and not self._taken_back:
            self._taken_back = True
            self.task.uncancel()
        return self.expired

    def start(self) -> None:
        """Sets the timer."""
        self.timer = self.task.get_loop().call_at(self.when, self.expire)


class TimeLimits:
    """The limits of what is awaited through it, on one event loop, which can be brought forward together."""

    __slots__ = ("_lingering", "_loop", "_pending")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lingering: Lingering[_Limit] = Lingering(_Limit.start)
        self._pending: dict[_Limit, None] = {}

    @types.coroutine
    def within(self, seconds: float, awaitable: Awaitable[T]) -> Generator[Any, Any, T]:
        """Awaits with a time limit, which is only set once the awaitable really waits.

        Args:
            seconds: The limit, from now.
            awaitable: What to await.

        Raises:
            TimeoutError: The limit passed first, or was brought forward; what was awaited is cancelled.
        """
        steps: Any = awaitable.__await__()
        value: T
        try:
            waits_for = next(steps)
        except StopIteration as done:
            value = done.value
            return value
        limit = self._enter(seconds)
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = steps.throw(error)
                else:
                    waits_for = steps.send(sent)
        except StopIteration as done:
            value = done.value
            return value
        except asyncio.CancelledError:
            if limit.is_over() and limit.task.cancelling() <= limit.cancelling:
                raise TimeoutError from None
            raise
        finally:
            del self._pending[limit]
            if limit.timer is None:
                self._lingering.leave(limit)
            else:
                limit.timer.cancel()
            if limit.expired:
                limit.is_over()  # what was awaited may have made something else of the cancellation

    def expire_all(self) -> None:
        """Ends every wait now."""
        for limit in self._pending:
            limit.expire()

    def _enter(self, seconds: float) -> _Limit:
        loop = self._loop
        if loop is None:  # kept, since up to Python 3.11 each look for it is a system call
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "only a task can wait"
        limit = _Limit(task, loop.time() + seconds)
        self._pending[limit] = None
        if seconds > 2 * GRACE_S:
            self._lingering.enter(limit)
        else:
            limit.start()
        return limit
