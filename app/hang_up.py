"""Cancels requests whose clients have gone away. Those that are answered at once never listen for it."""

from __future__ import annotations

import asyncio
from typing import Any

from app.http import Receive
from router.lingering import Lingering


class HangUp:
    """What becomes of one request if its client goes away: it is cancelled.

    Args:
        task: The task that works on the request, the current one.
        receive: The ASGI receive callable, whose next message after the body is the disconnect.

    Attributes:
        listener: Waits for that; None for as long as the request does not linger.
    """

    __slots__ = ("_gone", "_receive", "_task", "listener")

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self._task = task
        self._receive = receive
        self.listener: asyncio.Task[None] | None = None
        self._gone = False

    def listen(self) -> None:
        """Waits for it from now on, in a task of its own."""
        self.listener = self._task.get_loop().create_task(self._listen(), name="hang-up")

    def caused(self) -> bool:
        """Whether it, and nothing else, is why the request was just cancelled; that is over then."""
        return self._gone and self._task.uncancel() == 0

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()


class HangUps:
    """The requests under way whose clients may hang up."""

    __slots__ = ("_lingering", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lingering: Lingering[HangUp] = Lingering(HangUp.listen)

    def watch(self, receive: Receive) -> HangUp:
        """Watches the current task's request, whose body was read, until `forget`."""
        loop = self._loop
        if loop is None:  # kept, since up to Python 3.11 each look for it is a system call
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "a server runs each request in a task"
        hang_up = HangUp(task, receive)
        self._lingering.enter(hang_up)
        return hang_up

    def forget(self, hang_up: HangUp) -> None:
        """The request has ended."""
        self._lingering.leave(hang_up)
        if hang_up.listener is not None:
            hang_up.listener.cancel()
