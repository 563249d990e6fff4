"""The way to one gRPC server for unary calls: one connection for all of them, made when needed, replaced when stuck."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from grpc import StatusCode

from backends import http2
from backends.grpc_call import GrpcCall, RpcError
from backends.grpc_connection import GrpcConnection
from backends.server import ABANDONED_FOR_S, CLOSE_GRACE_S, MAX_MESSAGE_BYTES, RENEW_AFTER, seconds_until
from router.errors import BackendTimeout, BackendUnavailable

CONNECT_S = 1.0
"""How long one attempt to connect may take: several round trips with TLS. After an outage a new attempt is answered
sooner than one that waits for the network to send its packets again. An address gets half of what is left, as long as
there is another to turn to."""

LOOK_UP_S = 0.2
"""How long a name's new addresses are waited for where there are old ones."""

SILENT_S = 1.0
"""A connection on which nothing came for so long, nor since `RENEW_AFTER` calls ago that were not answered in time, is
replaced: it may be one that the network has forgotten, and the kernel keeps trying for a quarter of an hour."""

CUT_OFF_S = 0.002
"""Whoever leaves so shortly before the deadline was cut off by another timer for it: some count in milliseconds."""

_TIMEOUT = b"\x00\x0cgrpc-timeout"
"""A header that neither side remembers, as it begins (RFC 7541, section 6.2.2)."""


class GrpcChannel:
    """See the module. To be made inside the running loop; no network is needed to make it.

    There are no keepalive pings: probes carry more data than any ping would, and servers strike eager ones.

    Args:
        url: `grpc://host:port`, or `grpcs://host:port` for TLS with the system's certificate authorities.
        service: The service's full name.
    """

    def __init__(self, url: str, service: str) -> None:
        parts = urlsplit(url)
        self._name = parts.netloc
        self._host = parts.hostname or ""
        self._port = parts.port or 0
        self._service = service
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "grpcs":
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["h2"])
        self._loop = asyncio.get_running_loop()
        self._heads: dict[str, bytes] = {}
        self._connection: GrpcConnection | None = None
        self._connections: set[GrpcConnection] = set()
        self._attempt: asyncio.Task[GrpcConnection | str] | None = None
        self._resolving: asyncio.Future[Any] | None = None
        self._addresses: list[str] = []
        self._failed_at: dict[str, float] = {}
        self._closed = False

    @property
    def connection(self) -> GrpcConnection | None:
        """The connection that the next call goes over; None if it is to be made first."""
        return self._connection

    async def ask(self, method: str, message: bytes, deadline: float) -> bytes:
        """Sends a request and waits for its answer until the deadline; one that is not waited for is cancelled.

        Args:
            method: The method's name.
            message: The request.
            deadline: Monotonic seconds.

        Raises:
            BackendTimeout: The deadline passed.
            BackendUnavailable: The server cannot be reached.
            NotBegun: The server is going away, or will not begin the call; it may be asked again.
            BackendLost: The connection was lost on the way.
            RpcError: The server says that the call failed.
        """
        return await self._exchange(method, message, deadline, 0.0, None)

    async def ask_to_the_end(
        self, method: str, message: bytes, deadline: float, late: Callable[[float], None] | None
    ) -> bytes:
        """Like `ask`, but leaves a request that nobody waits for any more to end by itself, within two seconds after
        its deadline. One whose caller left before that is cancelled if the server survives it.

        Args:
            method, message, deadline: As for `ask`.
            late: Told how many seconds such a request took after all.
        """
        return await self._exchange(method, message, deadline, ABANDONED_FOR_S, late)

    async def close(self) -> None:
        """Closes, once the requests that were left to themselves have ended, within reason."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait((self._attempt,))
        if self._resolving is not None:
            self._resolving.cancel()
        for connection in tuple(self._connections):
            connection.retire()
        await self._all_closed()
        for connection in tuple(self._connections):
            connection.close("the gateway closed it")
        await self._all_closed()

    async def _exchange(
        self, method: str, message: bytes, deadline: float, patience_s: float, late: Callable[[float], None] | None
    ) -> bytes:
        if len(message) > MAX_MESSAGE_BYTES:
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, f"The request has more than {MAX_MESSAGE_BYTES} bytes.")
        connection, seconds = self._connection, seconds_until(deadline)
        if connection is None and seconds > 0:
            connection = await self._connected(seconds)
            seconds = seconds_until(deadline)
        if connection is None or seconds <= 0:
            raise BackendTimeout("The deadline passed before the request could be sent.")
        loop = self._loop
        head = (self._heads.get(method) or self._head(method)) + _timeout(seconds + patience_s)
        call = GrpcCall(head, message, loop.create_future(), late, time.monotonic())
        connection.begin(call)
        timer = loop.call_later(seconds, _too_late, call)
        try:
            outcome = await call.answer
        finally:
            timer.cancel()
            if call.open:
                self._leave(connection, call, patience_s, seconds_until(deadline))
        if isinstance(outcome, Exception):
            try:
                raise outcome
            finally:
                del outcome, call  # an error holds this frame, which is not to hold the error, and so the message
        return outcome

    def _leave(self, connection: GrpcConnection, call: GrpcCall, patience_s: float, early_s: float) -> None:
        """Sees to a call that nobody waits for any more, so many seconds before its deadline."""
        if not call.answer.cancelled():  # whoever leaves early says nothing about the connection
            connection.unheard += 1
        given_up = BackendTimeout("The server did not answer in time.")
        cancel = not call.stream or (early_s > CUT_OFF_S and connection.survives_cancelling)
        if patience_s and not cancel:  # one that waits for its turn is not sent any more
            call.expiry = self._loop.call_later(patience_s, connection.give_up, call, given_up)
        else:
            connection.give_up(call, given_up)
        if connection.unheard >= RENEW_AFTER and time.monotonic() - connection.heard_at > SILENT_S:
            connection.retire()

    def _head(self, method: str) -> bytes:
        """What the headers of all calls of a method begin with."""
        head = self._heads[method] = http2.encoded(
            (
                (":method", "POST"),
                (":scheme", "https" if self._tls else "http"),
                (":path", f"/{self._service}/{method}"),
                (":authority", self._name),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", "hybrid-router"),
            )
        )
        return head

    async def _connected(self, seconds: float) -> GrpcConnection:
        """A connection, within so many seconds. Whoever needs one at the same time shares the attempt to make it."""
        if self._closed:
            raise BackendUnavailable(f"The connection to {self._name} was closed.")
        attempt = self._attempt
        if attempt is None:
            attempt = self._attempt = self._loop.create_task(self._connect(), name="connect")
            attempt.add_done_callback(self._attempted)
        await asyncio.wait((attempt,), timeout=seconds)
        if not attempt.done():
            raise BackendTimeout("The server did not answer in time.")
        outcome = "the connection was closed" if attempt.cancelled() else attempt.result()
        if isinstance(outcome, str):
            raise BackendUnavailable(f"{self._name} cannot be reached: {outcome}.")
        return outcome

    def _attempted(self, _: object) -> None:
        self._attempt = None

    async def _connect(self) -> GrpcConnection | str:
        """A new connection, on which the server has said hello, or why there is none."""
        until = time.monotonic() + CONNECT_S
        try:
            async with asyncio.timeout(CONNECT_S):
                addresses = await self._resolved()
        except TimeoutError:
            return f"its name was not resolved within {CONNECT_S:g} s"
        except (OSError, UnicodeError) as error:
            return f"its name could not be resolved: {error}"
        why = "its name leads nowhere"
        # Whichever failed last comes last: it may swallow whatever is sent there.
        in_turn = sorted(addresses, key=lambda address: self._failed_at.get(address, 0.0))
        for others, address in zip(reversed(range(len(in_turn))), in_turn, strict=True):
            seconds = (until - time.monotonic()) / (2 if others else 1)
            try:
                async with asyncio.timeout(seconds):
                    self._connection = await self._connected_to(address)
            except TimeoutError:
                why = f"it did not answer within {seconds:.2g} s"
            except OSError as error:
                why = str(error)
            else:
                return self._connection
            self._failed_at[address] = time.monotonic()
        return why

    async def _resolved(self) -> list[str]:
        """The addresses that the server's name stands for; those that it had, if nobody can say.

        A look-up that takes longer than an attempt goes on, and the next attempt waits for the same one: each occupies
        a thread.

        Raises:
            OSError, UnicodeError: There are none.
        """
        looking = self._resolving
        if looking is None:
            looking = self._resolving = asyncio.ensure_future(
                self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            )
            looking.add_done_callback(self._looked_up)
        await asyncio.wait((looking,), timeout=LOOK_UP_S if self._addresses else None)
        if not self._addresses:
            looking.result()
        return self._addresses

    def _looked_up(self, looking: asyncio.Future[Any]) -> None:
        self._resolving = None
        if not looking.cancelled() and looking.exception() is None:
            self._addresses = [str(info[4][0]) for info in looking.result()]
            self._failed_at = {a: at for a, at in self._failed_at.items() if a in self._addresses}

    async def _connected_to(self, address: str) -> GrpcConnection:
        """A connection to that address.

        Raises:
            OSError: There is none; the sentence says why.
        """
        transport, connection = await self._loop.create_connection(
            lambda: GrpcConnection(self._name, self._loop, self._is_over),
            address,
            self._port,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        self._connections.add(connection)
        connection.closed.add_done_callback(lambda _: self._connections.discard(connection))
        try:
            tls = transport.get_extra_info("ssl_object")
            why = await connection.ready
            if why is not None or connection.over:
                raise OSError(why or "it is going away")
            if tls is not None and tls.selected_alpn_protocol() != "h2":
                raise OSError("it does not offer HTTP/2")
        except BaseException:
            connection.close("the connection was given up")
            raise
        return connection

    async def _all_closed(self) -> None:
        if self._connections:
            await asyncio.wait([connection.closed for connection in self._connections], timeout=CLOSE_GRACE_S)

    def _is_over(self, connection: GrpcConnection) -> None:
        if self._connection is connection:
            self._connection = None


def _timeout(seconds: float) -> bytes:
    """The header that tells the server how long it has."""
    value = b"%dm" % min(99_999_999, int(seconds * 1000) + 1)
    return _TIMEOUT + bytes((len(value),)) + value


def _too_late(call: GrpcCall) -> None:
    if not call.answer.done():
        call.answer.set_result(BackendTimeout("The server did not answer in time."))
