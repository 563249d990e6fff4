"""A client of the benchmarks: one keep-alive connection, one request at a time, the same every time, at little cost."""

from __future__ import annotations

import asyncio
from typing import cast
from urllib.parse import urlsplit

import click


class Connection(asyncio.Protocol):
    """One connection. A response has to carry its Content-Length, as ours do."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answered: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it

    def data_received(self, data: bytes) -> None:
        """Part of a response, or all of it."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._received[:head].lower().find(b"content-length:")
        length = int(self._received[at + 15 : head].split(b"\r\n")[0])
        if len(self._received) >= head + 4 + length:
            response, self._received = bytes(self._received), bytearray()
            assert self._answered is not None, "responses come to requests only"
            self._answered.set_result(response)

    def connection_lost(self, error: Exception | None) -> None:
        """The server hung up, or we did."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> None:
        """Sends a request and waits for its response, which must be a 200."""
        assert self._transport is not None, "it is connected before it is handed out"
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        response = await self._answered
        if not response.startswith(b"HTTP/1.1 200"):
            raise click.ClickException(f"not a 200: {response[:600].decode(errors='replace')}")

    def close(self) -> None:
        """Hangs up."""
        assert self._transport is not None, "it is connected before it is handed out"
        self._transport.close()


async def connect(url: str) -> Connection:
    """A connection to the server of this base URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None, "it is the base URL of a server"
    _, connection = await asyncio.get_running_loop().create_connection(Connection, parts.hostname, parts.port or 80)
    return connection


def post(path: str, body: str) -> bytes:
    """A POST of JSON as it goes over the line."""
    length = len(body)
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: {length}"
    return f"{head}\r\n\r\n{body}".encode()
