"""uvicorn's HTTP protocol, which sends an answer in one piece where there is more than one to send.

uvicorn writes an answer's head and its body apart, and uvloop makes a system call of each write. Under load over
loopback the second one is a tenth of what `/infer` costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HELD = 1 << 16
"""Bytes that may wait for the end of the turn. With more, the connection itself must say how fast they go out."""

LONGEST_HELD_S = 0.0005
"""Once something has waited for so long, the next answer that begins is not waited for."""

WRITES_OF_ONE = 2
"""uvicorn's writes for one answer: its head and its body."""


class Outbox:
    """What is written in one turn of the event loop, on any of a server's connections.

    After a turn with several answers, those of the next go out together at its end, or sooner if it takes long: to wake
    a client for each of them, for its head and for its body, costs more than they do. A lone answer is not held: the
    end of a turn is tens of microseconds away, and a client that was woken by the head is awake when the body comes.

    Args:
        clock: Gives monotonic seconds.

    Attributes:
        crowded: Whether the turn before had several answers.
    """

    __slots__ = ("_clock", "_holding", "_since", "_writes", "crowded")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.crowded = False
        self._clock = clock
        self._writes = 0
        self._holding: list[JoinedWrites] = []
        self._since = 0.0

    def wrote(self, loop: asyncio.AbstractEventLoop) -> None:
        """Learns of a write on any connection."""
        if self._writes == 0:
            loop.call_soon(self._end_turn)
        self._writes += 1

    def hold(self, writes: JoinedWrites) -> None:
        """Sees to it that what this connection writes in this turn is sent at its end."""
        now = self._clock()
        if not self._holding:
            self._since = now
        elif now - self._since > LONGEST_HELD_S:
            self._send()
            self._since = now
        self._holding.append(writes)

    def _end_turn(self) -> None:
        self.crowded = self._writes > WRITES_OF_ONE
        self._writes = 0
        self._send()

    def _send(self) -> None:
        holding, self._holding = self._holding, []
        for writes in holding:
            writes.flush()


class JoinedWrites:
    """A transport that sends what is written in one turn of the event loop in one piece, if others write too.

    It has what uvicorn asks of a transport, and passes on whatever else is asked of it.

    Args:
        transport: The connection's own transport.
        loop: Its event loop.
        outbox: The server's.
    """

    __slots__ = ("_loop", "_outbox", "_pending", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._transport = transport
        self._loop = loop
        self._outbox = outbox
        self._pending: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Sends these bytes behind those that were written before: now, or with others at the end of the turn."""
        self._outbox.wrote(self._loop)
        if not self._pending:
            if not self._outbox.crowded:
                self._transport.write(data)
                return
            self._outbox.hold(self)
        self._pending.append(data)
        self._size += len(data)
        if self._size > MOST_HELD:
            self.flush()

    def flush(self) -> None:
        """Sends what was written; nothing where the client has left."""
        pending, self._pending, self._size = self._pending, [], 0
        if pending and not self._transport.is_closing():
            self._transport.writelines(pending)

    def close(self) -> None:
        """Closes the connection once all that was written is sent."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        outbox: The server's; the rest is uvicorn's.
    """

    def __init__(self, *args: Any, outbox: Outbox, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outbox = outbox

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport, self.loop, self._outbox)))


def http_protocol() -> type[asyncio.Protocol]:
    """What uvicorn is to call for each connection of one server."""
    return cast(type[asyncio.Protocol], partial(HttpProtocol, outbox=Outbox(time.monotonic)))
