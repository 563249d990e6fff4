"""An event loop whose clock jumps to the next timer, so that deadlines are tested without waiting for them."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

START = 1000.0
"""Time at which a loop begins; not 0, so that nobody takes a duration for a point in time."""

FOREVER = float("inf")


class NothingWillEverHappen(Exception):
    """Every task waits, and no timer is set: in real time the test would hang."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop in which time passes only when nothing else is left to do, and then at once.

    Attributes:
        lateness: Seconds by which timers fire late, as they do on a busy machine.
        thread_seconds: How long work in a thread takes; the work itself is done at once, in this thread.
    """

    def __init__(self) -> None:
        self.now = START
        self.lateness = 0.0
        self.thread_seconds = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Runs `func` now and delivers what it came to after `thread_seconds`."""
        future: asyncio.Future[T] = self.create_future()

        def deliver() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        if self.thread_seconds < FOREVER:
            self.call_later(self.thread_seconds, deliver)
        return future


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise NothingWillEverHappen
            if timeout > 0:
                self._loop.now += timeout + self._loop.lateness
        return events


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Runs an async test on a `VirtualTimeLoop`."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(test(*args, **kwargs))

    return run


def virtual_loop() -> VirtualTimeLoop:
    """The loop that runs this test."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop
