"""One unary gRPC call: what is sent, and what the server makes of it, however it comes in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from struct import Struct
from urllib.parse import unquote

from grpc import StatusCode

from backends.http2 import Reason
from backends.server import MAX_MESSAGE_BYTES

PREFIX = 5
"""Bytes before a message: whether it is compressed, and its length."""

_PREFIX = Struct(">BI")

_CODES: dict[str, StatusCode] = {str(code.value[0]): code for code in StatusCode}

_HTTP_CODES = {
    "400": StatusCode.INTERNAL,
    "401": StatusCode.UNAUTHENTICATED,
    "403": StatusCode.PERMISSION_DENIED,
    "404": StatusCode.UNIMPLEMENTED,
    "413": StatusCode.RESOURCE_EXHAUSTED,
    "429": StatusCode.UNAVAILABLE,
    "502": StatusCode.UNAVAILABLE,
    "503": StatusCode.UNAVAILABLE,
    "504": StatusCode.UNAVAILABLE,
}
"""What an HTTP status means that no gRPC server sent (grpc/doc/http-grpc-status-mapping.md, and 413, which is the fault
of one large request and none of the server's)."""

_RESET_CODES: dict[int, StatusCode] = {
    Reason.CANCEL: StatusCode.CANCELLED,
    Reason.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    Reason.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}
"""What the reason of a stream's end means (grpc/doc/PROTOCOL-HTTP2.md, "Errors")."""


class RpcError(Exception):
    """The server's status for a call, or what its way of ending it means as one.

    Attributes:
        code: The status.
        detail: What the server says, or a sentence of ours.
    """

    def __init__(self, code: StatusCode, detail: str) -> None:
        super().__init__(f"{code.name}: {detail}")
        self.code = code
        self.detail = detail


class GrpcCall:
    """A call, from before it is sent until nothing of it is left.

    Args:
        head: The request's block of headers.
        message: The request.
        answer: Resolves to the answer's bytes, or to the error that the call ended in.
        late: Told the seconds that the call took if its answer came when `answer` had been given up already.
        now: When it began, monotonic seconds.

    Attributes:
        head, message, answer: The same.
        stream: Its stream's number once it was sent; 0 before.
        window: How many more bytes the server lets it send.
        sent: How many bytes of its message were sent; less than 0 while its prefix is not.
        open: Whether it has not ended.
        expiry: Ends it on the server if nobody waits for it any more.
    """

    __slots__ = (
        "_begun",
        "_late",
        "_parts",
        "_size",
        "_started",
        "answer",
        "expiry",
        "head",
        "message",
        "open",
        "sent",
        "stream",
        "window",
    )

    def __init__(
        self,
        head: bytes,
        message: bytes,
        answer: asyncio.Future[bytes | Exception],
        late: Callable[[float], None] | None,
        now: float,
    ) -> None:
        self.head = head
        self.message = message
        self.answer = answer
        self.stream = 0
        self.window = 0
        self.sent = -PREFIX
        self.open = True
        self.expiry: asyncio.TimerHandle | None = None
        self._late = late
        self._started = now
        self._begun = False
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def unsent(self) -> int:
        """How many bytes of it are still to be sent, its prefix included."""
        return len(self.message) - self.sent

    @property
    def prefix(self) -> bytes:
        """What is sent before its message: not compressed, and so many bytes."""
        return _PREFIX.pack(0, len(self.message))

    def take(self, size: int) -> bytes | memoryview:
        """So many of the bytes that are still to be sent; they count as sent."""
        begin, self.sent = self.sent, self.sent + size
        if begin >= 0:
            return memoryview(self.message)[begin : self.sent]
        return (self.prefix + self.message[: max(0, self.sent)])[begin + PREFIX :][:size]

    def end(self, outcome: bytes | Exception, now: float) -> None:
        """It has ended. Whoever waits learns how; an answer that nobody waits for any more is late."""
        self.open = False
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        if not self.answer.done():
            self.answer.set_result(outcome)
        elif self._late is not None and isinstance(outcome, bytes):
            self._late(now - self._started)

    def headers(self, headers: Mapping[str, str], ended: bool) -> bytes | Exception | None:
        """Takes in headers of the server's, the last of which are its trailers. Returns the outcome, if it is that."""
        if ended and "grpc-status" in headers:
            return self._outcome(headers)
        status = headers.get(":status", "")
        if self._begun:
            return RpcError(StatusCode.INTERNAL, "The server ended the call without a status.")
        if status.startswith("1") and not ended:
            return None
        self._begun = True
        content = headers.get("content-type", "")
        if status != "200" or not content.startswith("application/grpc"):
            code = _HTTP_CODES.get(status, StatusCode.UNKNOWN)
            return RpcError(code, f"What answers is no gRPC server: HTTP status {status[:3]}, {content[:60]!r}.")
        return RpcError(StatusCode.INTERNAL, "The server ended the call without a status.") if ended else None

    def data(self, data: bytes, ended: bool) -> Exception | None:
        """Takes in a part of the answer. Returns the error that the call ends in if it may not be."""
        if not self._begun:
            return RpcError(StatusCode.INTERNAL, "The server answered without headers.")
        if data:
            self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_MESSAGE_BYTES + PREFIX:
            return RpcError(StatusCode.RESOURCE_EXHAUSTED, f"The answer has more than {MAX_MESSAGE_BYTES} bytes.")
        return RpcError(StatusCode.INTERNAL, "The server ended the call without a status.") if ended else None

    def _outcome(self, trailers: Mapping[str, str]) -> bytes | Exception:
        status = trailers["grpc-status"]
        if status != "0":
            code = _CODES.get(status, StatusCode.UNKNOWN)
            return RpcError(code, unquote(trailers.get("grpc-message", ""), errors="replace"))
        content = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if len(content) < PREFIX or content[0] or int.from_bytes(content[1:PREFIX], "big") != len(content) - PREFIX:
            return RpcError(StatusCode.INTERNAL, "What the server answered is not one message, uncompressed.")
        return content[PREFIX:]


def reset_by_server(reason: int) -> RpcError:
    """What it means that the server ended a call's stream."""
    code = _RESET_CODES.get(reason, StatusCode.INTERNAL)
    return RpcError(code, f"The server broke the call off, for reason {reason} of HTTP/2.")
