"""Bodies that came compressed, inflated within a bound.

- Never more than the bound, and one byte, is inflated, however much a body claims or holds.
- A stream that is cut short, that is followed by anything, or that is none is refused.
- The event loop inflates a little at most; what is more is inflated in a thread.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Final

from router.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType

INLINE_BYTES: Final = 64 << 10
"""What the event loop inflates by itself, in some 0.1 ms; a hop to a thread and back would cost as much."""

_WINDOW_BITS: Final[Mapping[bytes, int]] = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""As zlib names the containers: 31 is gzip's, 15 its own, which HTTP calls deflate."""


class Inflater:
    """Inflates one body.

    Args:
        coding: The value of `Content-Encoding`.
        max_bytes: A body that becomes larger is refused.

    Raises:
        UnsupportedMediaType: There is no such coding here.
    """

    def __init__(self, coding: bytes, max_bytes: int) -> None:
        bits = _WINDOW_BITS.get(coding.strip().lower())
        if bits is None:
            raise UnsupportedMediaType(
                f"Content-Encoding {coding[:40].decode('latin-1')!r} is not accepted; send gzip, deflate, or as it is."
            )
        self._stream = zlib.decompressobj(bits)
        self._max_bytes = max_bytes

    async def inflate(self, body: bytes) -> bytes:
        """The body as it was before it was compressed.

        Raises:
            BodyTooLarge: It is larger than the bound.
            MalformedBody: It is not such a stream, or not exactly one.
        """
        begin = self._decompress(body, min(INLINE_BYTES, self._max_bytes + 1))
        if not self._stream.eof and len(begin) == INLINE_BYTES:
            room = self._max_bytes + 1 - len(begin)
            begin += await asyncio.to_thread(self._decompress, self._stream.unconsumed_tail, room)
        if len(begin) > self._max_bytes:
            raise BodyTooLarge(
                f"The body inflates to more than {self._max_bytes} bytes, the limit that HYBRID_ROUTER_MAX_BODY_BYTES "
                "sets. Send fewer rows at a time."
            )
        if not self._stream.eof:
            raise MalformedBody("The compressed body ends before its stream does.")
        if self._stream.unused_data:
            raise MalformedBody("The compressed body goes on after its stream has ended.")
        return begin

    def _decompress(self, content: bytes, room: int) -> bytes:
        try:
            return self._stream.decompress(content, room) if room else b""
        except zlib.error as error:
            raise MalformedBody(f"The body is not compressed as its Content-Encoding says: {error}.") from error
