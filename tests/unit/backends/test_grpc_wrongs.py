"""Servers that do not keep to HTTP/2: they lose the connection and learn why, and nothing of a call is left open."""

from __future__ import annotations

import pytest

from backends import http2
from backends.http2 import Kind, Reason
from router.errors import BackendLost
from tests.unit.backends.grpc_server import HEADERS, Setting, silence
from tests.unit.backends.grpc_wire import Link, greeted, linked, settings


def broken(link: Link, content: bytes) -> int:
    """The reason that a server is told, which sent what it must not; one call is lost by it."""
    call = link.ask(b"question")
    link.up()
    link.feed(content)
    assert isinstance(call.outcome, BackendLost)
    assert "does not keep to HTTP/2" in call.outcome.detail
    link.up()
    assert link.nothing_is_left()
    assert link.over == [link.connection]
    assert link.side.goaway is not None
    return link.side.goaway


LONG = http2.encoded([("x-more", "y" * 16_000)])
MUCH = http2.encoded([("x-more", "i" * 1000)] * 64)

WRONGS = {
    "a push": (http2.frame(Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\2\x88"), Reason.PROTOCOL_ERROR),
    "data on a stream that was never opened": (http2.frame(Kind.DATA, 0, 3, b"data"), Reason.PROTOCOL_ERROR),
    "headers on one": (http2.frame(Kind.HEADERS, 4, 3, b"\x88"), Reason.PROTOCOL_ERROR),
    "a reset of one": (http2.reset(3, Reason.CANCEL), Reason.PROTOCOL_ERROR),
    "a window for one": (http2.window_update(3, 1), Reason.PROTOCOL_ERROR),
    "headers on a stream of the server's": (http2.frame(Kind.HEADERS, 4, 2, b"\x88"), Reason.PROTOCOL_ERROR),
    "data on no stream": (http2.frame(Kind.DATA, 0, 0, b"data"), Reason.PROTOCOL_ERROR),
    "headers that go on without a beginning": (http2.frame(Kind.CONTINUATION, 4, 1, b"\x88"), Reason.PROTOCOL_ERROR),
    "something amid headers": (
        http2.frame(Kind.HEADERS, 0, 1, b"\x88") + http2.frame(Kind.PING, 0, 0, bytes(8)),
        Reason.PROTOCOL_ERROR,
    ),
    "something unknown amid headers": (
        http2.frame(Kind.HEADERS, 0, 1, b"") + http2.frame_header(0, 99, 0, 0),
        Reason.PROTOCOL_ERROR,
    ),
    "headers of another stream amid headers": (
        http2.frame(Kind.HEADERS, 0, 1, b"\x88") + http2.frame(Kind.CONTINUATION, 4, 3, b""),
        Reason.PROTOCOL_ERROR,
    ),
    "headers without end": (
        http2.frame(Kind.HEADERS, 0, 1, b"") + http2.frame(Kind.CONTINUATION, 0, 1, b"") * 1000,
        Reason.ENHANCE_YOUR_CALM,
    ),
    "headers of a megabyte": (
        http2.frame(Kind.HEADERS, 0, 1, LONG[:16000]) + http2.frame(Kind.CONTINUATION, 0, 1, LONG[:16000]) * 8,
        Reason.ENHANCE_YOUR_CALM,
    ),
    "headers that unpack to a megabyte": (
        http2.frame(Kind.HEADERS, 0, 1, MUCH[:16000])
        + http2.frame(Kind.CONTINUATION, 0, 1, MUCH[16000:32000])
        + http2.frame(Kind.CONTINUATION, 4, 1, MUCH[32000:]),
        Reason.COMPRESSION_ERROR,
    ),
    "headers that cannot be read": (http2.frame(Kind.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff"), Reason.COMPRESSION_ERROR),
    "headers that refer to others": (http2.frame(Kind.HEADERS, 4, 1, b"\xbe"), Reason.COMPRESSION_ERROR),
    "a table of headers": (http2.frame(Kind.HEADERS, 4, 1, b"\x3f\xe1\x1f\x88"), Reason.COMPRESSION_ERROR),
    "a frame that is too large": (http2.frame_header(16385, Kind.DATA, 0, 1), Reason.FRAME_SIZE_ERROR),
    "more padding than frame": (http2.frame(Kind.DATA, http2.PADDED, 1, b"\x05abc"), Reason.PROTOCOL_ERROR),
    "padding without a length": (http2.frame(Kind.DATA, http2.PADDED, 1, b""), Reason.PROTOCOL_ERROR),
    "a short ping": (http2.frame(Kind.PING, 0, 0, b"1234567"), Reason.FRAME_SIZE_ERROR),
    "short settings": (http2.frame(Kind.SETTINGS, 0, 0, b"12345"), Reason.FRAME_SIZE_ERROR),
    "a window beyond all": (settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}), Reason.FLOW_CONTROL_ERROR),
    "a window of all that is opened too far": (http2.window_update(0, (1 << 31) - 1), Reason.FLOW_CONTROL_ERROR),
    "a short window": (http2.frame(Kind.WINDOW_UPDATE, 0, 0, b"\0\0\1"), Reason.FRAME_SIZE_ERROR),
    "a short reset": (http2.frame(Kind.RST_STREAM, 0, 1, b"\0\0\1"), Reason.FRAME_SIZE_ERROR),
    "a short goodbye": (http2.frame(Kind.GOAWAY, 0, 0, b"\0\0\1"), Reason.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize(("content", "reason"), WRONGS.values(), ids=WRONGS.keys())
def test_a_server_that_does_not_keep_to_the_protocol_loses_the_connection_and_learns_why(
    content: bytes, reason: Reason
) -> None:
    with greeted(silence) as link:
        assert broken(link, content) == reason


@pytest.mark.parametrize("content", WRONGS.values(), ids=WRONGS.keys())
def test_what_is_wrong_is_so_in_single_bytes_too(content: tuple[bytes, Reason]) -> None:
    with greeted(silence) as link:
        call = link.ask()
        for at in range(min(len(content[0]), 40)):
            link.feed(content[0][at : at + 1])
        link.feed(content[0][40:])
        assert call.ends == 1
        link.up()
        assert link.nothing_is_left()


@pytest.mark.parametrize(
    "content",
    [
        http2.frame_header(3, 99, 255, 77) + b"abc",
        http2.frame(Kind.SETTINGS, 0, 0, b"\x00\x99\0\0\0\1"),
        http2.frame_header(5, 2, 0, 1) + b"\0\0\0\0\x10",
        b"",
    ],
    ids=["a frame", "a setting", "a priority", "nothing"],
)
def test_what_nobody_knows_says_nothing(content: bytes) -> None:
    with greeted() as link:
        call = link.ask(b"question")
        link.feed(content)
        link.settle()
        assert call.outcome == b"question"


@pytest.mark.parametrize(
    "hello",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
        http2.frame(Kind.PING, 0, 0, bytes(8)),
        http2.frame(Kind.HEADERS, 4, 1, http2.encoded(HEADERS)),
    ],
    ids=["http/1.1", "ssh", "a ping", "an answer"],
)
def test_a_server_that_says_hello_otherwise_does_not_speak_http_2(hello: bytes) -> None:
    with linked() as link:
        link.feed(hello)
        assert link.connection.ready.result() == "it does not speak HTTP/2"
        link.up()
        assert link.nothing_is_left()


def test_a_server_that_hangs_up_instead_of_saying_hello_is_not_ready_and_says_why() -> None:
    with linked() as link:
        link.wire.lose(ConnectionResetError("reset by peer"))
        assert link.connection.ready.result() == "reset by peer"
    with linked() as link:
        link.wire.lose()
        assert link.connection.ready.result() == "it closed the connection"
