"""The gRPC connection against any server that keeps to HTTP/2, and against bytes that keep to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import h2.exceptions
from hypothesis import given
from hypothesis import strategies as st

from backends import http2
from backends.grpc_call import GrpcCall
from backends.http2 import Kind
from router.errors import BackendTimeout
from tests.unit.backends.grpc_server import Asked, ServerSide, Setting, echo
from tests.unit.backends.grpc_wire import Link, greeted, linked, recut

sizes = st.integers(0, 40) | st.integers(0, 70_000) | st.integers(0, 200_000)
windows = st.integers(4000, 300_000) | st.just(1 << 30)
frame_sizes = st.just(1 << 14) | st.integers(1 << 14, 1 << 18) | st.just((1 << 24) - 1)
cuts = st.lists(st.integers(1, 30) | st.integers(1, 70_000), max_size=12)
choices = st.lists(st.integers(0, 1 << 16), min_size=1, max_size=12)


@dataclass(frozen=True)
class Manners:
    """How a server goes about it.

    Attributes:
        settings: What it says of itself.
        pads: How much it pads the frames of its answers.
        choices: How it cuts its headers, and what it says besides.
        delay: How many calls it keeps before it answers the last of them first.
    """

    settings: dict[Setting, int]
    pads: tuple[int, ...]
    choices: list[int]
    delay: int


manners = st.builds(
    Manners,
    st.fixed_dictionaries(
        {},
        optional={
            Setting.INITIAL_WINDOW_SIZE: windows,
            Setting.MAX_FRAME_SIZE: frame_sizes,
            Setting.MAX_CONCURRENT_STREAMS: st.integers(1, 5),
        },
    ),
    st.lists(st.integers(0, 255), max_size=3).map(tuple),
    choices,
    st.integers(0, 3),
)


class Mannered:
    """A server of such manners, and what it has kept."""

    def __init__(self, manners: Manners) -> None:
        self._pads = manners.pads
        self._delay = manners.delay
        self._choices = cycle(manners.choices)
        self._kept: list[Asked] = []

    def script(self, side: ServerSide, asked: Asked) -> None:
        """Keeps the call, and answers all that are kept once they are too many."""
        self._kept.append(asked)
        if len(self._kept) > self._delay:
            self.answer_all(side)

    def answer_all(self, side: ServerSide) -> None:
        """Answers what is kept, the last call first."""
        while self._kept:
            asked = self._kept.pop()
            if asked.stream not in side.resets:
                side.answer(asked.stream, answer_to(asked.message), self._pads)

    def open_windows(self, side: ServerSide) -> None:
        """Opens windows that are shut: after it has made them smaller, `h2` leaves that to the server."""
        for asked in side.asked.values():
            if not asked.whole and asked.stream not in side.resets:
                room = side.h2.remote_flow_control_window(asked.stream)
                if room <= 0:
                    side.h2.increment_flow_control_window(5000 - room)
                    side.h2.increment_flow_control_window(5000 - room, asked.stream)

    def say_something(self, side: ServerSide) -> None:
        """Says something, or nothing, that has to do with no answer."""
        choice = next(self._choices)
        if side.goaway is not None:
            return
        if choice % 5 == 0:
            side.h2.ping(b"are you?")
        elif choice % 5 == 1:
            side.settings({Setting.INITIAL_WINDOW_SIZE: 4000 + choice, Setting.MAX_FRAME_SIZE: (1 << 14) + choice})
        elif choice % 5 == 2:
            side.h2.increment_flow_control_window(1 + choice)
        elif choice % 5 == 3:
            open_ones = [it.stream for it in side.asked.values() if not it.whole and it.stream not in side.resets]
            for stream in open_ones[:1]:
                side.h2.increment_flow_control_window(1 + choice, stream)


def answer_to(message: bytes) -> bytes:
    """What the server makes of a message."""
    return message[::-1] + b"!"


def pieces(first: list[int]) -> Iterator[int]:
    """How many bytes go at a time."""
    yield from first
    while True:
        yield 0


def move(link: Link, up: list[int], down: list[int], server: Mannered, rounds: int = 5000) -> None:
    """Moves bytes in such pieces until there are none, and the server has said something now and then."""
    ups, downs = pieces(up), pieces(down)
    for turn in range(rounds):
        waiting = link.wire.get_write_buffer_size()
        moved = link.up(next(ups) or max(1000, waiting // 10))
        if turn < 30:
            server.say_something(link.side)
        moved += link.down(next(downs) or 30_000)
        if not moved:
            server.answer_all(link.side)
            if link.side.goaway is None:
                server.open_windows(link.side)
            if not link.down():
                return


@given(st.lists(sizes, max_size=8), manners, cuts, cuts)
def test_every_call_gets_its_own_answer_from_any_server_however_the_bytes_come(
    sizes: list[int], manners: Manners, up: list[int], down: list[int]
) -> None:
    server, cutting = Mannered(manners), cycle(manners.choices)
    with linked(server.script, manners.settings) as link:
        link.cut = lambda data: recut(data, cutting)
        move(link, [], down, server)
        assert link.connection.ready.result() is None
        messages = [bytes((turn,)) * size for turn, size in enumerate(sizes)]
        calls = [link.ask(message) for message in messages]
        move(link, up, down, server)
        assert [call.outcome for call in calls] == [answer_to(message) for message in messages]
        assert not link.side.resets
        link.connection.retire()
        move(link, up, down, server)
        assert link.nothing_is_left()
        assert link.side.goaway == http2.Reason.NO_ERROR
        assert link.over == [link.connection]


@given(st.lists(st.tuples(sizes, st.integers(0, 400_000)), max_size=6), manners, cuts, cuts)
def test_calls_may_be_given_up_at_any_moment_and_the_others_get_their_answers(
    asked: list[tuple[int, int]], manners: Manners, up: list[int], down: list[int]
) -> None:
    server = Mannered(manners)
    with linked(server.script, manners.settings) as link:
        link.settle()
        calls = [link.ask(bytes((turn,)) * size) for turn, (size, _) in enumerate(asked)]
        for call, (size, when) in zip(calls, asked, strict=True):
            if when < 2 * size:
                link.up(when)
                link.connection.give_up(call, BackendTimeout("enough"))
        move(link, up, down, server)
        for call, (size, when) in zip(calls, asked, strict=True):
            if not isinstance(call.outcome, BackendTimeout):
                assert call.outcome == answer_to(call.message)
            else:
                assert when < 2 * size
        link.connection.retire()
        move(link, up, down, server)
        assert link.nothing_is_left()


def kept(link: Link) -> list[GrpcCall]:
    """The calls that the connection still knows of."""
    return [*link.connection._calls.values(), *link.connection._waiting]


def suffer(link: Link, content: bytes, cuts: list[int]) -> None:
    """Receives anything at all: no error comes of it, and every call has ended once when the connection has."""
    at = 0
    for size in [*cuts, len(content)]:
        link.feed(content[at : at + size])
        at += size
    for call in link.calls:
        assert call.ends == (call not in kept(link))
    link.wire.lose()
    assert link.nothing_is_left()
    assert kept(link) == []


kinds = st.sampled_from(list(Kind)) | st.integers(0, 255)
words = st.binary(max_size=40) | st.integers(0, (1 << 32) - 1).map(lambda it: it.to_bytes(4, "big"))
headers = st.lists(
    st.tuples(
        st.sampled_from([":status", "grpc-status", "grpc-message", "content-type"]),
        st.sampled_from(["200", "0", "1", "100", "502", "application/grpc", "", "%ff%", "text/html"]),
    ),
    max_size=5,
).map(http2.encoded)
anything = st.lists(
    st.builds(
        http2.frame,
        kinds,
        st.sampled_from([0, 1, 4, 5]) | st.integers(0, 255),
        st.integers(0, 9) | st.integers(0, (1 << 32) - 1),
        words | headers | st.builds(b"".join, st.lists(words, max_size=4)),
    ),
    max_size=12,
).map(b"".join)


@given(st.lists(sizes, max_size=4), anything | st.binary(max_size=300), cuts)
def test_no_bytes_in_the_place_of_a_hello_are_an_error_of_ours(
    sizes: list[int], content: bytes, cuts: list[int]
) -> None:
    with linked() as link:
        for size in sizes:
            link.ask(bytes(size))
        suffer(link, content, cuts)
        assert link.connection.ready.done()


@given(st.lists(sizes, max_size=4), anything | st.binary(max_size=300), cuts)
def test_no_bytes_after_a_hello_are_an_error_of_ours(sizes: list[int], content: bytes, cuts: list[int]) -> None:
    with greeted(settings={Setting.MAX_CONCURRENT_STREAMS: 3}) as link:
        for size in sizes:
            link.ask(bytes(size))
        suffer(link, content, cuts)


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    choices,
    cuts,
)
def test_no_change_to_what_a_server_says_is_an_error_of_ours(
    sizes: list[int], changes: list[tuple[int, bytes]], choices: list[int], cuts: list[int]
) -> None:
    """The server's words come changed, so that what the client makes of them need not be to the server's liking."""
    with greeted(echo) as link:
        for size in sizes:
            link.ask(bytes(size))
        link.up()
        content = bytearray(recut(link.side.h2.data_to_send(), cycle(choices)))
        for at, change in changes:
            content[at % len(content) : at % len(content) + len(change)] = change
        suffer(link, bytes(content), cuts)


@given(sizes, manners, st.binary(min_size=1, max_size=60))
def test_what_a_connection_has_received_is_forgotten_with_it(size: int, manners: Manners, content: bytes) -> None:
    """A server that stops in the midst of a frame, and hangs up."""
    with greeted(settings=manners.settings) as link:
        call = link.ask(bytes(size))
        link.feed(http2.frame_header(1000, Kind.DATA, 0, call.stream) + content)
        assert call.open
        link.wire.lose(ConnectionResetError("reset by peer"))
        assert link.nothing_is_left()
        assert link.over == [link.connection]


def test_the_server_stand_in_holds_the_client_to_the_protocol() -> None:
    with greeted() as link:
        link.ask()
        link.wire.write(http2.frame(Kind.DATA, 0, 7, b"on a stream that nobody opened"))
        try:
            link.up()
        except h2.exceptions.ProtocolError:
            return
        raise AssertionError("nothing was found")
