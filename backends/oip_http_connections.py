"""The connections to one HTTP server: bounded, kept for a while, used again, and replaced as a whole.

Invariants: what was taken is given back exactly once; nothing is closed under an exchange that uses it.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from typing import Protocol

import httpx

from router.errors import Overloaded

MAX_CONNECTIONS = 256
"""More calls at once than any model's limit lets through, and room for the probes."""

KEPT_S = 4.0
"""How long an idle connection is kept: uvicorn closes one after five seconds, and a request must not meet that. The
probes keep one warm."""

MAX_REQUESTS = 500
"""Requests that HTTP/2 connections carry before the next take over: servers end one after some number of them (nginx
after 1,000) with a GOAWAY, which httpcore takes for the loss of all that is under way."""


class Connections(Protocol):
    """What an exchange takes a connection from."""

    def take(self) -> httpx.AsyncHTTPTransport:
        """Something to make one exchange with.

        Raises:
            Overloaded: As many are under way as may be.
        """
        ...

    async def give_back(self, transport: httpx.AsyncHTTPTransport, *, whole: bool) -> None:
        """The exchange has ended, however it did; `whole` if it got its answer."""
        ...

    async def retire(self) -> None:
        """Nothing more will be taken. What is idle closes now, and the rest when it is given back."""
        ...

    @property
    def worn(self) -> bool:
        """Whether others should take over."""
        ...


class OneByOne:
    """HTTP/1.1: a connection carries one request at a time, and the one that was used last is used next.

    httpx's own pool looks at all its connections twice for each request: with 16 of them, that costs more CPU than the
    rest of the request.
    """

    worn = False

    def __init__(self) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; making the default one costs 20 ms
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()
        self._taken = 0
        self._retired = False

    def take(self) -> httpx.AsyncHTTPTransport:
        """The connection that was given back last, or a new one."""
        if self._taken >= MAX_CONNECTIONS:
            raise Overloaded(f"{MAX_CONNECTIONS} calls to the server are under way already.")
        self._taken += 1
        if self._idle:
            return self._idle.pop()[1]
        return httpx.AsyncHTTPTransport(
            verify=self._tls, limits=httpx.Limits(max_connections=1, keepalive_expiry=KEPT_S), trust_env=False
        )

    async def give_back(self, transport: httpx.AsyncHTTPTransport, *, whole: bool) -> None:
        """Keeps it, and closes those that nobody has used for long.

        One whose exchange was broken off is closed: what httpcore knows of its connection may be wrong from then on.
        """
        self._taken -= 1
        if self._retired or not whole:
            return await transport.aclose()
        now = time.monotonic()
        self._idle.append((now, transport))
        while now - self._idle[0][0] > KEPT_S:
            await self._idle.popleft()[1].aclose()

    async def retire(self) -> None:
        """Closes the idle ones."""
        self._retired = True
        while self._idle:
            await self._idle.pop()[1].aclose()


class Shared:
    """Over TLS: one connection carries all requests where the server speaks HTTP/2, and else httpx's pool of them."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        limits = httpx.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEPT_S
        )
        self._transport = httpx.AsyncHTTPTransport(verify=tls, http2=True, limits=limits, trust_env=False)
        self._asked = 0
        self._under_way = 0
        self._retired = False

    @property
    def worn(self) -> bool:
        """Whether the server may soon end the connection."""
        return self._asked >= MAX_REQUESTS

    def take(self) -> httpx.AsyncHTTPTransport:
        """The one that all use."""
        if self._under_way >= MAX_CONNECTIONS:
            raise Overloaded(f"{MAX_CONNECTIONS} calls to the server are under way already.")
        self._asked += 1
        self._under_way += 1
        return self._transport

    async def give_back(self, transport: httpx.AsyncHTTPTransport, *, whole: bool) -> None:
        """Closes it after the last exchange, once it is retired."""
        self._under_way -= 1
        await self._close_if_over()

    async def retire(self) -> None:
        """Closes it if nothing is under way."""
        self._retired = True
        await self._close_if_over()

    async def _close_if_over(self) -> None:
        if self._retired and not self._under_way:
            await self._transport.aclose()
