"""A request on the short way: its head, its body, and the way back."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Protocol

from app.codec.problem import Headers
from app.dialects import Dialect


class Connection(Protocol):
    """What a request came over.

    Attributes:
        tasks: Those at work for its requests.
    """

    tasks: set[asyncio.Task[None]]

    def answer(self, exchange: Exchange, status: int, body: bytes, headers: Headers) -> None:
        """Sends the answer to a request."""


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
        connection: What it came over.
        head: Its head.
        body: Its body.
        keep_alive: Whether the connection stays open behind the answer.
        arrived: When its head was there, monotonic seconds.

    Attributes:
        disconnected: Whether the client has left.
        response_complete: Whether it was answered.
        message_event: Set by uvicorn when the client leaves.
    """

    __slots__ = ("_connection", "_task", "arrived", "body", "disconnected", "head", "keep_alive", "response_complete")

    message_event: ClassVar = _Nobody()

    def __init__(self, connection: Connection, head: Head, body: bytes, keep_alive: bool, arrived: float) -> None:
        self.head = head
        self.body = body
        self.arrived = arrived
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self._connection = connection
        self._task: asyncio.Task[None] | None = None

    def work(self, task: asyncio.Task[None]) -> None:
        """Is told of the task that is going to answer, and is cancelled if the client leaves before."""
        self._task = task
        tasks = self._connection.tasks
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
            self._connection.answer(self, status, body, headers)
