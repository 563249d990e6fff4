"""A gRPC connection and a server with nothing between them but bytes, which the test moves as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from backends import http2
from backends.grpc_call import GrpcCall
from backends.grpc_connection import GrpcConnection
from backends.http2 import Kind
from tests.unit.backends.grpc_server import SERVICE, Script, ServerSide, Setting, echo

KERNEL_BYTES = 32 << 10
"""What the kernel takes of what is written while the network takes nothing."""


class Frame(NamedTuple):
    """A frame, whoever sent it."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frames(data: bytes) -> Iterator[Frame]:
    """The whole frames of which these bytes are made."""
    at = len(http2.PREFACE) if data.startswith(http2.PREFACE) else 0
    while at + http2.FRAME_HEADER <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        begin = at + http2.FRAME_HEADER
        at = begin + size
        stream = int.from_bytes(data[begin - 4 : begin], "big")
        yield Frame(data[begin - 6], data[begin - 5], stream, data[begin:at])


def settings(values: Mapping[Setting, int]) -> bytes:
    """A frame of settings."""
    content = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in values.items())
    return http2.frame(Kind.SETTINGS, 0, 0, content)


def recut(data: bytes, choices: Iterator[int]) -> bytes:
    """The same frames, but for headers that are padded, prioritised, and cut into pieces as chance has it."""
    return b"".join(
        http2.frame_header(len(one.payload), one.kind, one.flags, one.stream) + one.payload
        for frame in frames(data)
        for one in (_pieces(frame, choices) if frame.kind == Kind.HEADERS else [frame])
    )


def _pieces(frame: Frame, choices: Iterator[int]) -> Iterator[Frame]:
    flags, block, padding = frame.flags & http2.END_STREAM, frame.payload, b""
    cuts = sorted(next(choices) % (len(block) + 1) for _ in range(next(choices) % 4))
    parts = [block[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(block)], strict=True)]
    if next(choices) % 2:
        flags |= http2.PRIORITY
        parts[0] = b"\0\0\0\0\x10" + parts[0]
    if next(choices) % 2:
        flags |= http2.PADDED
        padding = bytes(next(choices) % 256)
        parts[0] = bytes((len(padding),)) + parts[0] + padding
    for turn, part in enumerate(parts):
        last = http2.END_HEADERS if turn == len(parts) - 1 else 0
        yield Frame(Kind.CONTINUATION if turn else Kind.HEADERS, last if turn else flags | last, frame.stream, part)


class Wire(asyncio.Transport):
    """A transport as asyncio's: what the kernel does not take at once is kept, and too much of that asks for a pause.

    Attributes:
        written: All that was written.
        most: Bytes that may be kept before it asks for a pause.
        paused: Whether it has asked for one.
        aborted: Whether it was closed without waiting for the network.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._kernel, self._buffer = bytearray(), bytearray()
        self._closing = self._lost = False
        self.most, self._few = 64 << 10, 16 << 10
        self.written = bytearray()
        self.paused = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes it, unless the connection is at its end."""
        if self._lost or (self._closing and not self._buffer):
            return
        self.written += data
        self._buffer += data
        self._fill()
        if len(self._buffer) > self.most and not self.paused:
            self.paused = True
            self._protocol.pause_writing()

    def _fill(self) -> None:
        room = KERNEL_BYTES - len(self._kernel)
        self._kernel += self._buffer[:room]
        del self._buffer[:room]

    def take(self, most: int) -> bytes:
        """What the network takes, of that which the kernel has."""
        taken = bytes(self._kernel[:most])
        del self._kernel[: len(taken)]
        self._fill()
        if self.paused and len(self._buffer) <= self._few:
            self.paused = False
            self._protocol.resume_writing()
        return taken

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Says when to ask for a pause, and when for no more of it."""
        self.most = 64 << 10 if high is None else high
        self._few = self.most // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """How many bytes the kernel has not taken."""
        return len(self._buffer)

    def is_closing(self) -> bool:
        """Whether it is closed, or soon will be."""
        return self._closing

    def close(self) -> None:
        """Closes once the kernel has taken all."""
        self._closing = True

    def abort(self) -> None:
        """Closes at once."""
        self._closing = self.aborted = True
        self._buffer.clear()

    def lose(self, error: Exception | None = None) -> None:
        """The connection is lost, as when the peer resets it."""
        if not self._lost:
            self._closing = self._lost = True
            self._buffer.clear()
            self._protocol.connection_lost(error)

    @property
    def lost(self) -> bool:
        """Whether nothing is left of it. A connection that is closed, and has nothing to send, is lost by that."""
        if self._closing and not self._buffer:
            self.lose()
        return self._lost


class WatchedCall(GrpcCall):
    """A call that counts how often it ends."""

    __slots__ = ("ends",)

    ends: int

    def end(self, outcome: bytes | Exception, now: float) -> None:
        """Ends it."""
        self.ends += 1
        super().end(outcome, now)

    @property
    def outcome(self) -> bytes | Exception:
        """What it came to."""
        return self.answer.result()


class Link:
    """See the module.

    Attributes:
        connection: The client's end.
        wire: Its transport.
        side: The server's end.
        calls: All calls.
        over: The connection, once for each time that it said it was over.
        cut: Says how the frames of the server are cut anew.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, side: ServerSide) -> None:
        self._loop = loop
        self._to_client = bytearray()
        self.side = side
        self.over: list[GrpcConnection] = []
        self.calls: list[WatchedCall] = []
        self.connection = GrpcConnection("the server", loop, self.over.append)
        self.wire = Wire(self.connection)
        self.cut: Callable[[bytes], bytes] = bytes
        self.connection.connection_made(self.wire)

    def call(self, message: bytes = b"", late: Callable[[float], None] | None = None) -> WatchedCall:
        """A call that is still to be begun."""
        head = http2.encoded(
            (
                *((":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/{len(self.calls)}")),
                *((":authority", "server"), ("te", "trailers"), ("content-type", "application/grpc")),
            )
        )
        made = WatchedCall(head, message, self._loop.create_future(), late, 0.0)
        made.ends = 0
        self.calls.append(made)
        return made

    def ask(self, message: bytes = b"", late: Callable[[float], None] | None = None) -> WatchedCall:
        """A call that was begun."""
        call = self.call(message, late)
        self.connection.begin(call)
        return call

    def feed(self, data: bytes) -> None:
        """The client receives bytes; as with asyncio's transports, not once it has closed."""
        if data and not self.wire.is_closing():
            self.connection.data_received(data)

    def up(self, most: int = 1 << 30) -> int:
        """Moves bytes to the server; says how many."""
        taken = self.wire.take(most)
        if taken:
            self.side.receive(taken)
        return len(taken)

    def down(self, most: int = 1 << 30) -> int:
        """Moves bytes to the client; says how many."""
        self._to_client += self.cut(self.side.h2.data_to_send())
        taken = bytes(self._to_client[:most])
        del self._to_client[: len(taken)]
        self.feed(taken)
        return len(taken)

    def settle(self) -> None:
        """Moves bytes until there are none."""
        while self.up() + self.down():
            pass

    def written(self, kind: Kind, stream: int | None = None) -> list[Frame]:
        """The frames of a kind that the client has written."""
        return [
            frame
            for frame in frames(bytes(self.wire.written))
            if frame.kind == kind and (stream is None or frame.stream == stream)
        ]

    def nothing_is_left(self) -> bool:
        """Whether every call has ended once, and the connection is closed."""
        return self.wire.lost and self.connection.closed.done() and all(call.ends == 1 for call in self.calls)


@contextmanager
def linked(
    script: Script = echo, settings: Mapping[Setting, int] | None = None, at_head: Script | None = None
) -> Iterator[Link]:
    """A connection to a server of that script, before the two have said anything to each other."""
    loop = asyncio.new_event_loop()
    try:
        yield Link(loop, ServerSide(script, settings, at_head))
    finally:
        loop.close()


@contextmanager
def greeted(
    script: Script = echo, settings: Mapping[Setting, int] | None = None, at_head: Script | None = None
) -> Iterator[Link]:
    """The same, after they have."""
    with linked(script, settings, at_head) as link:
        link.settle()
        assert link.connection.ready.result() is None
        yield link
