"""uvicorn's HTTP protocol, which sends an answer in one piece.

uvicorn writes an answer's head and its body apart, and uvloop makes a system call of each write. Over loopback such a
call costs a third of all that `/infer` costs beside it, and wakes the client for a head that it can do nothing with.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


MOST_PENDING = 1 << 16
"""Bytes that wait for the end of the turn. With more, the connection itself must say how fast they go out."""


class JoinedWrites:
    """A transport that sends what is written in one turn of the event loop at the end of that turn, in one piece.

    What is large goes out at once.

    It has what uvicorn asks of a transport, and passes on whatever else is asked of it.

    Args:
        transport: The connection's own transport.
        loop: Its event loop.
    """

    __slots__ = ("_loop", "_pending", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Sends these bytes at the end of the turn, behind those that were written before."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)
        self._size += len(data)
        if self._size > MOST_PENDING:
            self._flush()

    def close(self) -> None:
        """Closes the connection once all that was written is sent."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        pending, self._pending, self._size = self._pending, [], 0
        if pending and not self._transport.is_closing():
            self._transport.writelines(pending)


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport, self.loop)))
