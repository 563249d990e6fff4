"""uvicorn's HTTP protocol, with a short way for inference requests that come whole and ask for nothing special.

uvicorn makes a task of each request, and of each answer two writes; for a model that runs in some microseconds that is
a third of all. Whatever is not simple stays with uvicorn: other paths, bodies that are large or slow to come,
pipelining, `100-continue`, upgrades, clients that do not read their answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sized
from functools import lru_cache, partial
from typing import Any, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.codec.problem import Headers
from app.exchange import Exchange, Head
from app.fast_path import FastPath

END_OF_HEAD = b"\r\n\r\n"

PATIENCE_S = 0.1
"""How long the rest of a body may take: what is slower is read with a time limit, and with an eye on the client."""


class _Flow(FlowControl):
    """uvicorn's, but for this: nothing more is read while a request waits for those before it. It would pile up."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    What it was sent is either fed to the parser, or recognised: a head that came before, byte for byte and on its own,
    and what follows it. Of the latter nothing reaches the parser, which stays between two requests.

    Args:
        fast_path: Answers what takes the short way; the rest is uvicorn's.
    """

    def __init__(self, *args: Any, fast_path: FastPath, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fast_path = fast_path
        self._exchange: Exchange | None = None
        self._answered_at = 0.0
        self._between = True  # two requests is where the parser is
        self._head: Head | None = None  # of the request on the short way that the parser is in
        self._body = b""  # what has come of its body
        self._fresh: Head | None = None  # the latest that was parsed, and may be remembered
        self._unfed = b""  # a head that was recognised, and what has come of its body
        self._arrived = 0.0  # when the head of either was there
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def data_received(self, data: bytes) -> None:
        """Some of a request has come."""
        if self._unfed:
            data, self._unfed = self._unfed + data, b""
        if not self._between:
            return self._feed(data)
        end = data.find(END_OF_HEAD) + len(END_OF_HEAD)
        head = self._fast_path.heads.get(data[:end])
        if head is not None and self._is_free():
            missing = end + head.length - len(data)
            if missing == 0:
                return self._begin(head, data[end:], True, self._arrived if self._patience else time.monotonic())
            if missing > 0:
                if not self._patience:
                    self._arrived = time.monotonic()
                self._unfed = data
                return self._wait()
        self._feed(data)
        if self._fresh is not None:
            came = self._fresh.length if self._between else len(self._body)
            if end + came == len(data):  # else it stands behind another request
                self._fast_path.remember(data[:end], self._fresh)

    def on_message_begin(self) -> None:
        """The first byte of a request is there."""
        self._between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._head = self._short_way()
        if self._head is None:
            super().on_headers_complete()
            return
        self._body = b""
        self._arrived = time.monotonic()
        if self.parser.should_keep_alive():
            self._fresh = self._head

    def on_body(self, body: bytes) -> None:
        """Some of its body is there."""
        if self._head is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._between = True
        head, self._head = self._head, None
        if head is None:
            super().on_message_complete()
        else:
            body, self._body = self._body, b""
            self._begin(head, body, self.parser.should_keep_alive(), self._arrived)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or the server has closed the connection."""
        if self._exchange is not None:
            self._exchange.hung_up()
            self._exchange = None
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def answer(self, exchange: Exchange, status: int, body: bytes, headers: Headers) -> None:
        """Sends an answer."""
        self._exchange = None
        head = _head(status, tuple(self.server_state.default_headers), headers, exchange.keep_alive)
        self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        if not exchange.keep_alive:
            self.transport.close()
        self._answered_at = time.monotonic()
        if self.pipeline or self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def shutdown(self) -> None:
        """The server is going to stop: whose head has come is answered."""
        if self._patience is not None:
            self._patience.cancel()
            self._take_the_long_way()
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Closes a connection that was idle for long enough: one timer, rather than one for each answer."""
        left_s = self._answered_at + self.timeout_keep_alive - time.monotonic()
        if self._unfed or self._head is not None or not (self.cycle is None or self.cycle.response_complete):
            left_s = self.timeout_keep_alive
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _short_way(self) -> Head | None:
        """What the head says, if the request may take the short way."""
        parser = self.parser
        if (
            parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or parser.should_upgrade()
            or not self._is_free()
        ):
            return None
        return self._fast_path.head(self.url, self.headers)

    def _is_free(self) -> bool:
        """Whether nothing that came before is to be answered first, and the client reads its answers."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _feed(self, data: bytes) -> None:
        self._fresh = None
        super().data_received(data)
        if self._head is not None and not self.transport.is_closing():
            self._wait()

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(PATIENCE_S, self._take_the_long_way)

    def _take_the_long_way(self) -> None:
        """Hands a request to uvicorn whose body is slow to come."""
        self._patience = None
        if self._unfed:
            data, self._unfed = self._unfed, b""
            super().data_received(data)
        if self._head is not None:
            self._head = None
            super().on_headers_complete()
            body, self._body = self._body, b""
            if body:
                super().on_body(body)

    def _begin(self, head: Head, body: bytes, keep_alive: bool, arrived: float) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._exchange = exchange = Exchange(self, head, body, keep_alive, arrived)
        self.cycle = exchange  # type: ignore[assignment]
        self._fast_path.take(exchange)


@lru_cache(maxsize=256)
def _head(status: int, default: Headers, headers: Headers, keep_alive: bool) -> bytes:
    """The head of an answer but for its length; the date among the default headers changes once a second."""
    lines = [b"%b: %b\r\n" % header for header in (*default, *headers)]
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    return STATUS_LINE[status] + b"".join(lines)


def http_protocol(fast_path: FastPath) -> type[asyncio.Protocol]:
    """What uvicorn is to call for each connection of one server."""
    return cast(type[asyncio.Protocol], partial(HttpProtocol, fast_path=fast_path))
