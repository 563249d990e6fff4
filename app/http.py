"""The few things that the front asks of HTTP: a body within bounds, and one answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from app.inflate import Inflater
from router.errors import BodyTimeout, BodyTooLarge, MalformedBody
from router.time_limits import TimeLimits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyReader:
    """Reads requests' bodies.

    Args:
        max_bytes: A larger one is refused, before it is read if it says so itself.
        timeout_s: Longest that one may take to arrive.
    """

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._limits = TimeLimits()

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Reads a whole body.

        Args:
            headers: By lower-case name.
            receive: The ASGI receive callable.

        Raises:
            BodyTooLarge: It is.
            BodyTimeout: It did not arrive in time.
            MalformedBody: The client went away in the middle of it, or it is not compressed as it says.
            UnsupportedMediaType: It is compressed in a way that is not known here.
        """
        coding = headers.get(b"content-encoding", b"identity")
        inflater = None if coding == b"identity" else Inflater(coding, self._max_bytes)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > self._max_bytes:
            raise self._too_large()
        until = time.monotonic() + self._timeout_s
        try:
            message = await self._limits.within(self._timeout_s, receive())
            if message["type"] == "http.request" and not message.get("more_body"):
                body: bytes = message["body"]
                if len(body) > self._max_bytes:
                    raise self._too_large()
            else:
                body = await self._limits.within(until - time.monotonic(), self._rest(message, receive))
        except TimeoutError:
            raise BodyTimeout(f"The body did not arrive within {self._timeout_s:g} s.") from None
        return body if inflater is None else await inflater.inflate(body)

    async def _rest(self, message: Message, receive: Receive) -> bytes:
        """The whole of a body that comes in several messages, of which this is the first."""
        body = bytearray()
        while True:
            if message["type"] != "http.request":
                raise MalformedBody("The body ended before it was complete.")
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)
            message = await receive()

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is larger than {self._max_bytes} bytes, the limit that HYBRID_ROUTER_MAX_BODY_BYTES sets. "
            "Send fewer rows at a time."
        )


async def respond(send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Sends a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
