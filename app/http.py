"""The few things that the front asks of HTTP: a body within bounds, one answer, and to hear of a client's hang-up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Self

from router.errors import BodyTimeout, BodyTooLarge, MalformedBody, UnsupportedMediaType
from router.within import within

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LISTEN_AFTER_S = 0.005
"""A request that is answered sooner never pays for a task that listens for its client's hang-up."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, timeout_s: float) -> bytes:
    """Reads the whole body.

    Args:
        headers: By lower-case name.
        receive: The ASGI receive callable.
        max_bytes: Refuse a larger one, before it is read if it says so itself.
        timeout_s: Longest that it may take.

    Raises:
        BodyTooLarge: It is.
        BodyTimeout: It did not arrive in time.
        MalformedBody: The client went away in the middle of it.
        UnsupportedMediaType: It is compressed.
    """
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding[:40].decode('latin-1')!r} is not accepted; send it as it is."
        )
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 18 or int(length) > max_bytes:
        raise _too_large(max_bytes)
    try:
        return await within(timeout_s, _read(receive, max_bytes))
    except TimeoutError:
        raise BodyTimeout(f"The body did not arrive within {timeout_s:g} s.") from None


async def _read(receive: Receive, max_bytes: int) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        whole: bytes = message["body"]
        if len(whole) > max_bytes:
            raise _too_large(max_bytes)
        return whole
    body = bytearray()
    while True:
        if message["type"] != "http.request":
            raise MalformedBody("The body ended before it was complete.")
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {max_bytes} bytes, the limit that HYBRID_ROUTER_MAX_BODY_BYTES sets. "
        "Send fewer rows at a time."
    )


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Sends a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


class HangUp:
    """Cancels what runs in its `with` block when the client goes away, and swallows that cancellation.

    Args:
        receive: The ASGI receive callable, whose next message after the body is the disconnect.
    """

    __slots__ = ("_gone", "_listener", "_receive", "_task", "_timer")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None
        self._gone = False

    def __enter__(self) -> Self:
        return self

    def watch(self) -> None:
        """Listens from now on; to be called once the body was read."""
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(LISTEN_AFTER_S, self._start_listening)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if self._gone and kind is asyncio.CancelledError and self._task is not None:
            return self._task.uncancel() == 0
        return False

    def _start_listening(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen(), name="hang-up")

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        assert self._task is not None, "watch() starts this"
        self._task.cancel()
