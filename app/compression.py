"""Answers compressed for clients that ask for it.

A client asks by naming one coding in `Accept-Encoding`, as Triton's clients do. Lists of codings are what HTTP
libraries send unasked; to compress for all of them would cost more time on the device than it saves on the line.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Final

from app.codec.problem import Headers

INLINE_BYTES: Final = 16 << 10
"""What the event loop compresses by itself, in some 0.2 ms; larger answers are compressed in a thread."""

LEVEL: Final = 1
"""The fastest: tensors hardly shrink more with another."""

_WINDOW_BITS: Final[Mapping[bytes, int]] = {b"gzip": 31, b"deflate": 15}


async def compressed(body: bytes, headers: Headers, accepted: bytes) -> tuple[bytes, Headers]:
    """An answer in the coding that is accepted, and its headers; as it is, where that is none of those known here.

    Args:
        body: The whole answer.
        headers: Its headers.
        accepted: The value of `Accept-Encoding`.
    """
    coding = accepted.strip().lower()
    bits = _WINDOW_BITS.get(coding)
    if bits is None:
        return body, headers
    if len(body) > INLINE_BYTES:
        body = await asyncio.to_thread(_compress, body, bits)
    else:
        body = _compress(body, bits)
    return body, (*headers, (b"content-encoding", coding), (b"vary", b"accept-encoding"))


def _compress(body: bytes, bits: int) -> bytes:
    return zlib.compress(body, LEVEL, bits)
