"""A request on the short way: its head, its body, and the way back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from app.codec.problem import Headers
from app.dialects import Dialect

if TYPE_CHECKING:
    from app.http_protocol import HttpProtocol


class Head:
    """What the head of a request says.

    Args:
        dialect: What is spoken at its path.
        path: The path.
        headers: By lower-case name.
        length: Of the body that follows, bytes.
    """

    __slots__ = ("dialect", "headers", "length", "path")

    def __init__(self, dialect: Dialect, path: str, headers: dict[bytes, bytes], length: int) -> None:
        self.dialect = dialect
        self.path = path
        self.headers = headers
        self.length = length


class _Nobody:
    """Nobody waits for more of a request that came whole."""

    def set(self) -> None:
        """Tells nobody."""


class Exchange:
    """A request that has come whole, and the way back to whoever sent it.

    To uvicorn's protocol it is the cycle under way, which a pipelined request waits for.

    Args:
        protocol: Its connection.
        head: Its head.
        body: Its body.
        keep_alive: Whether the connection stays open behind the answer.
        arrived: When its head was there, monotonic seconds.

    Attributes:
        disconnected: Whether the client has left.
        response_complete: Whether it was answered.
        message_event: Set by uvicorn when the client leaves.
    """

    __slots__ = ("_protocol", "_task", "arrived", "body", "disconnected", "head", "keep_alive", "response_complete")

    message_event: ClassVar = _Nobody()

    def __init__(self, protocol: HttpProtocol, head: Head, body: bytes, keep_alive: bool, arrived: float) -> None:
        self.head = head
        self.body = body
        self.arrived = arrived
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self._protocol = protocol
        self._task: asyncio.Task[None] | None = None

    def work(self, task: asyncio.Task[None]) -> None:
        """Is told of the task that is going to answer, and is cancelled if the client leaves before."""
        self._task = task
        tasks = self._protocol.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    @property
    def at_work(self) -> bool:
        """Whether there is a task that is going to answer."""
        return self._task is not None

    def hung_up(self) -> None:
        """The client has left."""
        self.disconnected = True
        if self._task is not None:
            self._task.cancel()

    def answer(self, status: int, body: bytes, headers: Headers) -> None:
        """Sends the answer; nothing if the client has left."""
        if not self.disconnected:
            self.response_complete = True
            self.body = b""  # the connection keeps this exchange until the next
            self._protocol.answer(self, status, body, headers)
