"""What leaves for a gRPC server, no faster than the server's windows and the network allow.

A long message goes in pieces, in turn with others, and no more of it is handed to the kernel than it can send about
now: a probe would be stuck behind the rest, and pass for one that nobody answers.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from typing import Final

from backends import http2
from backends.grpc_call import GrpcCall
from backends.http2 import Kind, ProtocolError, Reason

HELD_BYTES: Final = 1 << 15
KERNEL_HELD_BYTES: Final = 1 << 14
"""Bytes that may wait for the network in this process, and in the kernel beside what is under way: together less than
half a second of a line of 1 Mbit/s."""

MOST_HELD_BYTES: Final = 1 << 20
"""With so many waiting, a server asks for more replies than it reads."""

_TCP_NOTSENT_LOWAT: Final = 25
"""linux/tcp.h; Python has it from 3.12 on."""


class Outbox:
    """See the module.

    Args:
        transport: Of the connection.

    Attributes:
        paused: Whether the network takes no more at present.
    """

    __slots__ = ("_transport", "_unsent", "_window", "paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._unsent: deque[GrpcCall] = deque()
        self._window = http2.DEFAULT_WINDOW
        self.paused = False
        transport.set_write_buffer_limits(HELD_BYTES)
        connection = transport.get_extra_info("socket")
        if connection is not None and sys.platform == "linux":
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, KERNEL_HELD_BYTES)

    def send(self, call: GrpcCall) -> None:
        """Sends a call that has its stream and its window, all of it if there is room."""
        size = call.unsent
        head = http2.frame_header(len(call.head), Kind.HEADERS, http2.END_HEADERS, call.stream) + call.head
        if self.paused or self._unsent or size > min(self._window, call.window, http2.LARGEST_FRAME):
            self._transport.write(head)
            self._unsent.append(call)
            self.pump()
        else:
            self._window -= size
            call.window -= size
            body = http2.frame_header(size, Kind.DATA, http2.END_STREAM, call.stream)
            self._transport.write(b"".join((head, body, call.prefix, call.message)))
            call.sent = len(call.message)

    def reply(self, frame: bytes) -> None:
        """Sends what a frame of the server's asks for; it is not put off, since servers count on it.

        Raises:
            ProtocolError: The server asks for more than it reads.
        """
        if self.paused and self._transport.get_write_buffer_size() > MOST_HELD_BYTES:
            raise ProtocolError("more questions than it reads answers to", Reason.ENHANCE_YOUR_CALM)
        self._transport.write(frame)

    def forget(self, call: GrpcCall) -> None:
        """Sends no more of a call."""
        if call.unsent and call in self._unsent:
            self._unsent.remove(call)

    def clear(self) -> None:
        """Sends no more of any."""
        self._unsent.clear()

    def widen(self, by: int) -> None:
        """The server lets all calls together send so many bytes more.

        Raises:
            ProtocolError: That is more than it may.
        """
        self._window += by
        if self._window > http2.LARGEST_WINDOW:
            raise ProtocolError("a window that is opened too far", Reason.FLOW_CONTROL_ERROR)

    def pump(self) -> None:
        """Sends of what is left what may be sent, a piece of each in turn."""
        unsent, without_room = self._unsent, 0
        while without_room < len(unsent) and not self.paused:
            call = unsent.popleft()
            room = min(call.unsent, self._window, call.window, http2.LARGEST_FRAME)
            if room <= 0:
                without_room += 1
            else:
                without_room = 0
                self._send_piece(call, room)
            if call.unsent:
                unsent.append(call)

    def _send_piece(self, call: GrpcCall, size: int) -> None:
        call.window -= size
        self._window -= size
        piece = call.take(size)
        self._transport.write(http2.frame_header(size, Kind.DATA, 0 if call.unsent else http2.END_STREAM, call.stream))
        self._transport.write(piece)
