"""One HTTP/2 connection to a gRPC server, for unary calls.

Invariants:
- Every call that was begun ends exactly once: with the server's answer, by `give_up`, or with the connection.
- At most as many calls are open as the server allows; the others wait for their turn, oldest first.
- A connection that is `over` takes no more calls, and closes when its last one has ended.
- A server that does not keep to the protocol loses the connection. It cannot make us hold more than the calls' answers,
  and a megabyte of replies that it does not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import ClassVar, cast

from grpc import StatusCode

from backends import http2
from backends.grpc_call import GrpcCall, RpcError, reset_by_server
from backends.grpc_outbox import Outbox
from backends.http2 import Kind, ProtocolError, Reason, Setting
from router.errors import BackendError, BackendLost, NotBegun

log = logging.getLogger(__name__)

_SETTINGS = {
    # A server that may remember nothing writes headers that mean the same every time.
    Setting.HEADER_TABLE_SIZE: 0,
    Setting.ENABLE_PUSH: 0,
    # An answer is bounded by its size alone, and calls by their number: a window would only slow it down.
    Setting.INITIAL_WINDOW_SIZE: http2.LARGEST_WINDOW,
}

_HELLO = b"".join(
    (
        http2.PREFACE,
        http2.settings(_SETTINGS),
        http2.window_update(0, http2.LARGEST_WINDOW - http2.DEFAULT_WINDOW),
    )
)

_WIDEN_AT = 1 << 30
"""Bytes received after which the server is let send as many again."""


class GrpcConnection(asyncio.Protocol):
    """See the module.

    Args:
        name: The server's, for sentences.
        loop: The running loop.
        is_over: Called once, when it takes no more calls.

    Attributes:
        ready: Resolves to None once the server has said hello, or to the reason why it will not.
        closed: Resolves once nothing is left of it.
        over: Whether it takes no more calls.
        heard_at: When the server last sent anything, monotonic seconds.
        unheard: How many calls were not answered in time since then.
        survives_cancelling: Whether the server survives that calls are cancelled; None where nobody asked it.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, is_over: Callable[[GrpcConnection], None]) -> None:
        self._name = name
        self._is_over = is_over
        self._calls: dict[int, GrpcCall] = {}
        self._waiting: deque[GrpcCall] = deque()
        self._next = 1
        self._most_calls = http2.LAST_STREAM
        self._first_window = http2.DEFAULT_WINDOW
        self._received = 0
        self._rest = b""
        self._blocks = http2.HeaderBlocks()
        self.ready: asyncio.Future[str | None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.over = False
        self._gone = False
        self.heard_at = monotonic()
        self.unheard = 0
        self.survives_cancelling: bool | None = None

    def begin(self, call: GrpcCall) -> None:
        """Sends a call, at once or when the server has room for it. A connection that is over ends it at once."""
        if self.over:
            call.end(NotBegun(f"{self._name} is going away."), monotonic())
        elif len(self._calls) < self._most_calls and not self._waiting:
            self._open(call)
        else:
            self._waiting.append(call)

    def give_up(self, call: GrpcCall, outcome: BackendError) -> None:
        """Ends a call, on the server too if it was sent. Does nothing if it has ended."""
        if call.open and call.stream:
            self._break_off(call, outcome)
        elif call.open:
            self._waiting.remove(call)
            call.end(outcome, monotonic())

    def retire(self) -> None:
        """Takes no more calls, and closes once those that were sent have ended."""
        self._be_over()
        if not self._calls:
            self._hang_up(Reason.NO_ERROR)

    def close(self, why: str) -> None:
        """Closes at once; what is under way is lost."""
        self._lose(why, Reason.NO_ERROR)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduces us to the server."""
        self._transport = cast(asyncio.Transport, transport)
        self._outbox = Outbox(self._transport)
        self._transport.write(_HELLO)

    def connection_lost(self, error: Exception | None) -> None:
        """Ends whatever was under way."""
        self._lose(str(error or "") or "it closed the connection", Reason.NO_ERROR)
        if not self.closed.done():
            self.closed.set_result(None)

    def eof_received(self) -> None:
        """The server sends no more: nothing that is sent from now on would be answered."""
        self.close("it closed the connection")

    def pause_writing(self) -> None:
        """The network takes no more."""
        self._outbox.paused = True

    def resume_writing(self) -> None:
        """The network takes more again."""
        self._outbox.paused = False
        self._outbox.pump()

    def data_received(self, data: bytes) -> None:
        """Takes in what the server sends, cut wherever it may be."""
        self.heard_at = monotonic()
        self.unheard = 0
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        try:
            while end - at >= http2.FRAME_HEADER and not self._gone:
                size, kind, flags, stream = http2.read_frame_header(data, at)
                begin = at + http2.FRAME_HEADER
                if begin + size > end:
                    break
                at = begin + size
                self._take(kind, flags, stream, data[begin:at])
        except ProtocolError as error:
            why = f"it does not keep to HTTP/2: {error}" if self.ready.done() else "it does not speak HTTP/2"
            self._lose(why, error.reason)
        self._rest = data[at:] if at < end else b""

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Takes in a frame; one of a kind that nobody knows says nothing."""
        if self._blocks.unfinished and kind != Kind.CONTINUATION:
            raise ProtocolError("something else amid headers")
        if kind != Kind.SETTINGS and not self.ready.done():
            raise ProtocolError("no settings to begin with")
        taker = self._TAKERS.get(kind)
        if taker is not None:
            taker(self, flags, stream, payload)

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received >= _WIDEN_AT:
            self._transport.write(http2.window_update(0, self._received))
            self._received = 0
        call = self._call(stream)
        if call is not None:
            error = call.data(http2.unpadded(flags & ~http2.PRIORITY, payload), bool(flags & http2.END_STREAM))
            if error is not None:
                self._break_off(call, error)

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        self._take_block(stream, self._blocks.begin(stream, flags, http2.unpadded(flags, payload)))

    def _take_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        self._take_block(stream, self._blocks.go_on(stream, flags, payload))

    def _take_block(self, stream: int, whole: tuple[bytes, bool] | None) -> None:
        call = None if whole is None else self._call(stream)
        if whole is None or call is None:
            return
        block, ended = whole
        outcome = call.headers(self._blocks.read(block), ended)
        if outcome is not None and ended and not call.unsent:
            self._end(call, outcome)
        elif outcome is not None:
            self._break_off(call, outcome)

    def _take_settings(self, flags: int, _: int, payload: bytes) -> None:
        if flags & http2.ACK:
            return
        for name, value in http2.read_settings(payload):
            if name == Setting.MAX_CONCURRENT_STREAMS:
                self._most_calls = value
            elif name == Setting.INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._first_window
                self._first_window = value
        self._outbox.reply(http2.frame(Kind.SETTINGS, http2.ACK, 0, b""))
        if not self.ready.done():
            self.ready.set_result(None)
        self._let_in()
        self._outbox.pump()

    def _take_ping(self, flags: int, _: int, payload: bytes) -> None:
        if len(payload) != http2.PING_SIZE:
            raise ProtocolError("a ping of another length", Reason.FRAME_SIZE_ERROR)
        if not flags & http2.ACK:
            self._outbox.reply(http2.frame(Kind.PING, http2.ACK, 0, payload))

    def _take_window(self, _: int, stream: int, payload: bytes) -> None:
        by = http2.number(payload) & http2.LARGEST_WINDOW
        if not stream:
            self._outbox.widen(by)
        elif (call := self._call(stream)) is not None:
            call.window += by
            if call.window > http2.LARGEST_WINDOW:
                self._break_off(call, RpcError(StatusCode.INTERNAL, "The server opened a window too far."))
        self._outbox.pump()

    def _take_reset(self, _: int, stream: int, payload: bytes) -> None:
        reason = http2.number(payload)
        call = self._call(stream)
        if call is not None and reason == Reason.REFUSED_STREAM:
            self._end(call, NotBegun(f"{self._name} has not begun the call, and will not."))
        elif call is not None:
            self._end(call, reset_by_server(reason))

    def _take_goaway(self, _: int, __: int, payload: bytes) -> None:
        last, reason = http2.number(payload) & http2.LAST_STREAM, http2.number(payload[4:])
        if reason != Reason.NO_ERROR:
            log.warning("%s ends the connection for reason %d of HTTP/2: %.200r", self._name, reason, payload[8:])
        self._be_over()  # first: whoever waits is not to be let in now
        for call in [call for stream, call in self._calls.items() if stream > last]:
            self._end(call, NotBegun(f"{self._name} is going away, and has not begun the call."))
        self.retire()

    def _take_promise(self, _: int, __: int, ___: bytes) -> None:
        raise ProtocolError("something that nobody asked for")

    _TAKERS: ClassVar[dict[int, Callable[[GrpcConnection, int, int, bytes], None]]] = {
        Kind.DATA: _take_data,
        Kind.HEADERS: _take_headers,
        Kind.RST_STREAM: _take_reset,
        Kind.SETTINGS: _take_settings,
        Kind.PUSH_PROMISE: _take_promise,
        Kind.PING: _take_ping,
        Kind.GOAWAY: _take_goaway,
        Kind.WINDOW_UPDATE: _take_window,
        Kind.CONTINUATION: _take_continuation,
    }

    def _call(self, stream: int) -> GrpcCall | None:
        """The call of that stream; None if it has ended.

        Raises:
            ProtocolError: There never was one.
        """
        if not stream & 1 or stream >= self._next:
            raise ProtocolError(f"something on stream {stream}, which was never opened")
        return self._calls.get(stream)

    def _open(self, call: GrpcCall) -> None:
        call.stream, call.window = self._next, self._first_window
        self._next += 2
        self._calls[call.stream] = call
        self._outbox.send(call)
        if self._next > http2.LAST_STREAM:
            self.retire()

    def _let_in(self) -> None:
        while self._waiting and len(self._calls) < self._most_calls:
            self._open(self._waiting.popleft())

    def _end(self, call: GrpcCall, outcome: bytes | Exception) -> None:
        """A call has ended; whoever is next is let in."""
        del self._calls[call.stream]
        self._outbox.forget(call)
        call.end(outcome, monotonic())
        if self.over:
            self.retire()
        elif self._waiting:
            self._let_in()

    def _break_off(self, call: GrpcCall, outcome: bytes | Exception) -> None:
        """Ends a call whose stream is not at its end: what comes of it later is ignored."""
        self._transport.write(http2.reset(call.stream, Reason.CANCEL))
        self._end(call, outcome)

    def _be_over(self) -> None:
        """Takes no more calls; those that wait for their turn have not begun."""
        if not self.over:
            self.over = True
            self._is_over(self)
            waiting, self._waiting = self._waiting, deque()
            for call in waiting:
                call.end(NotBegun(f"{self._name} is going away."), monotonic())

    def _lose(self, why: str, reason: Reason) -> None:
        """Ends all calls: the connection is of no use any more."""
        if not self.ready.done():
            self.ready.set_result(why)
        calls, self._calls = self._calls, {}
        self._outbox.clear()
        for call in calls.values():
            call.end(BackendLost(f"{self._name} was lost while the call was under way: {why}."), monotonic())
        self._be_over()
        self._hang_up(reason)

    def _hang_up(self, reason: Reason) -> None:
        """Closes; a network that takes no more is not waited for."""
        if self._gone:
            return
        self._gone = True
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.write(http2.goaway(reason))
            self._transport.close()
