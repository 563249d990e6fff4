"""What leaves for a gRPC server, no faster than the server's windows and the network allow.

A long message goes in pieces, in turn with others, so that a short one need not wait for its end.
"""

from __future__ import annotations

import asyncio
from collections import deque

from backends import http2
from backends.grpc_call import PREFIX, GrpcCall
from backends.http2 import Kind, ProtocolError, Reason


class Outbox:
    """See the module.

    Args:
        transport: Of the connection.

    Attributes:
        paused: Whether the network takes no more at present.
        largest_frame: Bytes that a frame may carry.
    """

    __slots__ = ("_transport", "_unsent", "_window", "largest_frame", "paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._unsent: deque[GrpcCall] = deque()
        self._window = http2.DEFAULT_WINDOW
        self.largest_frame = http2.LARGEST_FRAME
        self.paused = False

    def send(self, call: GrpcCall) -> None:
        """Sends a call that has its stream and its window, all of it if there is room."""
        size = call.unsent
        head = http2.frame_header(len(call.head), Kind.HEADERS, http2.END_HEADERS, call.stream) + call.head
        if self.paused or self._unsent or size > min(self._window, call.window, self.largest_frame):
            self._transport.write(head)
            self._unsent.append(call)
            self.pump()
        else:
            self._window -= size
            body = http2.frame_header(size, Kind.DATA, http2.END_STREAM, call.stream)
            self._transport.write(b"".join((head, body, call.prefix, call.message)))
            call.sent = len(call.message)

    def forget(self, call: GrpcCall) -> None:
        """Sends no more of a call."""
        if call.unsent and call in self._unsent:
            self._unsent.remove(call)

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
            room = min(call.unsent, self._window, call.window, self.largest_frame)
            if room < (PREFIX if call.sent < 0 else 1):
                without_room += 1
            else:
                without_room = 0
                self._send_piece(call, room)
            if call.unsent:
                unsent.append(call)

    def _send_piece(self, call: GrpcCall, size: int) -> None:
        begin = call.sent
        call.sent += size
        call.window -= size
        self._window -= size
        head = http2.frame_header(size, Kind.DATA, 0 if call.unsent else http2.END_STREAM, call.stream)
        self._transport.write(head + call.prefix if begin < 0 else head)
        self._transport.write(memoryview(call.message)[max(0, begin) : call.sent])
