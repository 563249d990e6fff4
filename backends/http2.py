"""HTTP/2 on the wire, as far as a client of unary calls needs it (RFC 9113): frames, settings, blocks of headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from struct import Struct

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

LARGEST_FRAME = 1 << 14
"""Bytes that a frame may carry, in both directions: what every peer takes, and short enough to wait for."""

LARGEST_WINDOW = (1 << 31) - 1
LAST_STREAM = (1 << 31) - 1
DEFAULT_WINDOW = (1 << 16) - 1

LARGEST_BLOCK = 1 << 16
MOST_PARTS = 16
"""Bytes that a block of headers to us may have, and in how many frames it may come."""

REMEMBERED_BLOCKS = 256
REMEMBERED_BYTES = 512
"""How many blocks of headers are known by heart, and how long they may be."""

_REMEMBER_NOTHING = b"\x20"

_FRAME = Struct(">HBBBI")
_SETTING = Struct(">HI")
_WORD = Struct(">I")

FRAME_HEADER = 9
PING_SIZE = 8
"""Bytes before each frame's own, and a ping's own."""


class Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class Setting(IntEnum):
    """What a peer may set."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4


class Reason(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ProtocolError(Exception):
    """The peer does not keep to the protocol: the connection is of no use any more.

    Attributes:
        reason: What it is told.
    """

    def __init__(self, sentence: str, reason: Reason = Reason.PROTOCOL_ERROR) -> None:
        super().__init__(sentence)
        self.reason = reason


def frame_header(size: int, kind: int, flags: int, stream: int) -> bytes:
    """What comes before a frame's own bytes."""
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream)


def read_frame_header(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Size, kind, flags and stream of the frame that begins there.

    Raises:
        ProtocolError: It is larger than was allowed.
    """
    high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
    size = high << 8 | low
    if size > LARGEST_FRAME:
        raise ProtocolError(f"a frame of {size} bytes where {LARGEST_FRAME} are allowed", Reason.FRAME_SIZE_ERROR)
    return size, kind, flags, stream & LAST_STREAM


def frame(kind: Kind, flags: int, stream: int, payload: bytes) -> bytes:
    """A whole frame."""
    return frame_header(len(payload), kind, flags, stream) + payload


def number(payload: bytes) -> int:
    """The 32-bit number that a frame begins with.

    Raises:
        ProtocolError: It is cut short.
    """
    if len(payload) < _WORD.size:
        raise ProtocolError("a frame that is cut short", Reason.FRAME_SIZE_ERROR)
    return int.from_bytes(payload[: _WORD.size], "big")


def reset(stream: int, reason: Reason) -> bytes:
    """A frame that ends a stream."""
    return frame(Kind.RST_STREAM, 0, stream, _WORD.pack(reason))


def goaway(reason: Reason) -> bytes:
    """A frame that ends a connection on which the peer opened no streams, as servers never do."""
    return frame(Kind.GOAWAY, 0, 0, _WORD.pack(0) + _WORD.pack(reason))


def window_update(stream: int, by: int) -> bytes:
    """A frame that lets the peer send so many bytes more."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, _WORD.pack(by))


def settings(values: Mapping[Setting, int]) -> bytes:
    """A frame of settings."""
    return frame(Kind.SETTINGS, 0, 0, b"".join([_SETTING.pack(*setting) for setting in values.items()]))


def read_settings(payload: bytes) -> Iterable[tuple[int, int]]:
    """What a peer sets, in its order; unknown settings too.

    Raises:
        ProtocolError: They are cut short, or not what they may be.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError("settings that are cut short", Reason.FRAME_SIZE_ERROR)
    for name, value in _SETTING.iter_unpack(payload):
        if name == Setting.INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ProtocolError(f"a window of {value} bytes", Reason.FLOW_CONTROL_ERROR)
        yield name, value


def unpadded(flags: int, payload: bytes) -> bytes:
    """What a DATA or HEADERS frame carries, less padding and priority.

    Raises:
        ProtocolError: There is more padding than frame.
    """
    begin, end = 0, len(payload)
    if flags & PADDED:
        begin, end = 1, end - (payload[0] if payload else 1)
    if flags & PRIORITY:
        begin += 5
    if begin > end:
        raise ProtocolError("a frame with more padding than it is long")
    return payload[begin:end]


def encoded(headers: Iterable[tuple[str, str]]) -> bytes:
    """A block of headers that neither side has to remember anything for, so that it can be sent again as it is.

    It begins by saying so: a server that shrinks what may be remembered is to be told (RFC 7541, section 4.2).
    """
    return _REMEMBER_NOTHING + bytes(Encoder().encode([NeverIndexedHeaderTuple(*header) for header in headers]))


class HeaderBlocks:
    """Reads blocks of headers by a peer that was told to remember none of them: each says the same every time.

    Attributes:
        unfinished: Whether one has begun and is to go on.
    """

    __slots__ = ("_ended", "_known", "_parts", "_stream", "unfinished")

    def __init__(self) -> None:
        self.unfinished = False
        self._known: dict[bytes, dict[str, str]] = {}
        self._parts: list[bytes] = []
        self._stream = 0
        self._ended = False

    def begin(self, stream: int, flags: int, part: bytes) -> tuple[bytes, bool] | None:
        """Takes in what a HEADERS frame carries. Returns the block, if it is whole, and whether its stream ended."""
        self._stream, self._ended = stream, bool(flags & END_STREAM)
        return self._add(flags, part)

    def go_on(self, stream: int, flags: int, part: bytes) -> tuple[bytes, bool] | None:
        """The same of a CONTINUATION frame.

        Raises:
            ProtocolError: There is nothing that it could go on with, or too much.
        """
        if not self.unfinished or stream != self._stream:
            raise ProtocolError("headers that go on without a beginning")
        return self._add(flags, part)

    def _add(self, flags: int, part: bytes) -> tuple[bytes, bool] | None:
        self._parts.append(part)
        if len(self._parts) > MOST_PARTS or sum(map(len, self._parts)) > LARGEST_BLOCK:
            raise ProtocolError("more headers than there may be", Reason.ENHANCE_YOUR_CALM)
        self.unfinished = not flags & END_HEADERS
        if self.unfinished:
            return None
        block, self._parts = b"".join(self._parts), []
        return block, self._ended

    def read(self, block: bytes) -> dict[str, str]:
        """The headers; not to be changed.

        Raises:
            ProtocolError: They cannot be read.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        decoder = Decoder(LARGEST_BLOCK)
        decoder.max_allowed_table_size = decoder.header_table_size = 0
        try:
            decoded = decoder.decode(block, raw=True)
            headers = {str(name, "latin-1"): str(value, "latin-1") for name, value in decoded}
        except HPACKError as error:
            raise ProtocolError(f"headers that cannot be read: {error}", Reason.COMPRESSION_ERROR) from None
        if len(block) <= REMEMBERED_BYTES:
            if len(self._known) >= REMEMBERED_BLOCKS:
                self._known.clear()
            self._known[block] = headers
        return headers
