"""Requests to one HTTP server and their answers, each within a time and a size; over HTTP/2 where TLS negotiates it.

httpx's transport is used without its client: redirects, cookies, proxies from the environment and decompression are
what an inference must not meet, and the client costs 100 µs and more of CPU per request on top.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from backends.oip_http_connections import Connections, OneByOne, Shared
from backends.server import (
    ABANDONED_FOR_S,
    CLOSE_GRACE_S,
    MAX_MESSAGE_BYTES,
    RENEW_AFTER,
    Late,
    seconds_until,
)
from router.errors import (
    BackendError,
    BackendFailed,
    BackendLost,
    BackendTimeout,
    BackendUnavailable,
    Overloaded,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, whole."""

    status: int
    headers: httpx.Headers
    body: bytes


class _Body(httpx.AsyncByteStream):
    """A request's body, which knows how much of it has left: without all of it, no server can have begun.

    Attributes:
        begun: Whether anything of the request has left.
        sent: Whether the network has taken all of it.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.begun = False
        self.sent = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
        self.sent = True

    async def trace(self, event: str, _: object) -> None:
        """Follows the exchange, as httpcore's extension of that name does."""
        if event.endswith("send_request_headers.started"):
            self.begun = True


class HttpChannel:
    """Asks one server. It connects when it is first used: no network is needed to make it.

    Args:
        url: `http://host:port` or `https://host:port` (TLS with the system's certificate authorities), a path before
            the protocol's own included.
        key: Sent as a bearer token; empty sends none.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        # Plain HTTP has no way to offer HTTP/2 (RFC 9113, section 3.3: prior knowledge), so there it stays at 1.1.
        self._tls = ssl.create_default_context() if url.startswith("https:") else None
        host = httpx.URL(url).netloc.decode("ascii")
        self._headers = {"host": host, "accept-encoding": "identity", "user-agent": "hybrid-router"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._abandoned: set[asyncio.Task[Answer]] = set()
        self._failed_gets = 0
        self._connections = self._new()

    def url(self, path: str) -> httpx.URL:
        """The address of a path below the server's."""
        return httpx.URL(self._url + path)

    async def get(self, url: httpx.URL, deadline: float) -> Answer:
        """Asks for a document. When several in a row get no answer at all, the connections are replaced.

        Over HTTP/2 a single connection carries everything, and can be one that the network has forgotten.

        Raises:
            BackendError: There is no answer.
        """
        used = self._connections
        try:
            answer = await self._exchange(httpx.Request("GET", url, headers=self._headers), seconds_until(deadline))
        except Overloaded:  # our own bound: nothing is wrong with the connections
            raise
        except BackendError:
            self._failed_gets += 1
            if self._failed_gets % RENEW_AFTER == 0:
                await self._renew(used)
            raise
        self._failed_gets = 0
        return answer

    async def infer(
        self, url: httpx.URL, headers: Mapping[str, str], content: bytes, deadline: float, late: Late | None
    ) -> Answer:
        """Sends an inference and waits for its answer until the deadline.

        One that nobody waits for any more is left to end by itself, as long as it has begun to leave: hanging up would
        cost a connection, and servers finish what they have begun (docs/decisions/0018).

        Args:
            url: Where to.
            headers: Beside those that all requests have.
            content: The body.
            deadline: Monotonic seconds.
            late: Told how many seconds an abandoned inference took after all.

        Raises:
            BackendError: There is no answer.
        """
        seconds = seconds_until(deadline)
        if seconds <= 0:
            raise BackendTimeout("The deadline passed before the request could be sent.")
        body = _Body(content)
        request = httpx.Request(
            "POST", url, headers={**self._headers, **headers, "content-length": str(len(content))}, stream=body
        )
        loop = asyncio.get_running_loop()
        started = loop.time()
        request.extensions["trace"] = body.trace
        exchange = loop.create_task(self._exchange(request, seconds + ABANDONED_FOR_S, body), name="exchange")
        exchange.add_done_callback(_seen)
        try:
            await asyncio.wait({exchange}, timeout=seconds)
        finally:
            if not exchange.done():
                self._abandon(exchange, body, started, late)
        if not exchange.done():
            raise BackendTimeout("The server did not answer in time.")
        if exchange.cancelled():
            raise BackendLost("The connection was given up while the call was under way.")
        return exchange.result()

    async def close(self) -> None:
        """Closes the connections, once the inferences that were abandoned have ended, within reason."""
        if self._abandoned:
            _, lasting = await asyncio.wait(self._abandoned, timeout=CLOSE_GRACE_S)
            for task in lasting:
                task.cancel()
            await asyncio.gather(*lasting, return_exceptions=True)
        await self._connections.retire()

    def _abandon(self, exchange: asyncio.Task[Answer], body: _Body, started: float, late: Late | None) -> None:
        self._abandoned.add(exchange)
        if not body.begun:
            exchange.cancel()

        def ended(task: asyncio.Task[Answer]) -> None:
            self._abandoned.discard(task)
            if late is not None and not task.cancelled() and task.exception() is None and task.result().status == 200:
                late(asyncio.get_running_loop().time() - started)

        exchange.add_done_callback(ended)

    async def _exchange(self, request: httpx.Request, seconds: float, body: _Body | None = None) -> Answer:
        """One request and its whole answer, in the words of our own errors."""
        limits: dict[str, Any] = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
        request.extensions["timeout"] = limits
        if self._connections.worn:
            await self._renew(self._connections)
        connections = self._connections
        transport = connections.take()
        whole = False
        try:
            async with asyncio.timeout(seconds):
                response = await transport.handle_async_request(request)
                try:
                    answer = Answer(response.status_code, response.headers, await _whole(response))
                finally:
                    await response.aclose()
            whole = True
            return answer
        except (httpx.TimeoutException, TimeoutError):
            raise BackendTimeout("The server did not answer in time.") from None
        except httpx.HTTPError as error:
            detail = str(error) or type(error).__name__
            if body is not None and body.sent:
                raise BackendLost(f"{request.url.host} was lost: {detail}") from error
            raise BackendUnavailable(f"{request.url.host} cannot be reached: {detail}") from error
        finally:
            await connections.give_back(transport, whole=whole)

    def _new(self) -> Connections:
        return OneByOne() if self._tls is None else Shared(self._tls)

    async def _renew(self, used: Connections) -> None:
        """Replaces the connections, unless that was done already. What is under way on them may still end."""
        if used is self._connections:
            self._connections = self._new()
            await used.retire()


def _seen(exchange: asyncio.Task[Answer]) -> None:
    """Looks at its error, of which nobody may want to know any more: one that nobody looked at would be logged."""
    if not exchange.cancelled():
        exchange.exception()


async def _whole(response: httpx.Response) -> bytes:
    """The body of an answer, as long as it is none of those that are made to fill the memory.

    Raises:
        BackendFailed: It is, or it is compressed though nobody asked for that.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BackendFailed("The server compressed its answer, which was not asked for.")
    chunks: list[bytes] = []
    size = 0
    assert isinstance(response.stream, httpx.AsyncByteStream), "an asynchronous transport has made it"
    async for chunk in response.stream:
        size += len(chunk)
        if size > MAX_MESSAGE_BYTES:
            raise BackendFailed(f"The server's answer is larger than {MAX_MESSAGE_BYTES} bytes.")
        chunks.append(chunk)
        if response.status_code == 500:
            # Its sentence is here. uvicorn and others close the connection after an error that they did not foresee,
            # and the next request must not meet that: what was not read to its end is not used again.
            break
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
