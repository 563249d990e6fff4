"""What a gRPC connection sends, and when: windows, pauses of the network, turns, and what a server may set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import http2
from backends.http2 import Kind
from router.errors import BackendLost, BackendTimeout
from tests.unit.backends.grpc_server import Setting, silence
from tests.unit.backends.grpc_wire import Link, greeted, settings

WIDE = {Setting.INITIAL_WINDOW_SIZE: 1 << 24}


def widened(link: Link) -> None:
    """The server lets all calls together send as much as each."""
    link.side.h2.increment_flow_control_window(1 << 24)
    link.down()


def sent(link: Link, stream: int) -> int:
    """How many bytes of a call's body were written, its prefix included."""
    return sum(len(frame.payload) for frame in link.written(Kind.DATA, stream))


def test_a_short_call_is_one_write_after_the_hello() -> None:
    with greeted() as link:
        before = len(link.written(Kind.HEADERS))
        call = link.ask(b"question")
        assert before == 0
        (head,), (body,) = link.written(Kind.HEADERS), link.written(Kind.DATA)
        assert (head.stream, head.flags, body.flags) == (call.stream, http2.END_HEADERS, http2.END_STREAM)
        assert body.payload == b"\0\0\0\0\x08question"


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("window", [100, 16384, 65535])
def test_a_window_is_used_to_its_last_byte_and_no_further(window: int, over: int) -> None:
    with greeted(settings={Setting.INITIAL_WINDOW_SIZE: window}) as link:
        call = link.ask(bytes(window - 5 + over))
        assert sent(link, call.stream) == window + min(over, 0)
        link.settle()
        assert call.outcome == call.message


@given(st.integers(0, 300), st.integers(1, 40), st.lists(st.integers(1, 8), max_size=4))
def test_no_window_is_too_small(size: int, window: int, more: list[int]) -> None:
    """A server may let a call send a byte at a time."""
    with greeted(settings={Setting.INITIAL_WINDOW_SIZE: window}) as link:
        call = link.ask(bytes(size))
        for by in more:
            link.up()
            if not link.side.asked[call.stream].whole:
                link.side.h2.increment_flow_control_window(by, call.stream)
            link.down()
        link.settle()
        assert call.answer.done()
        assert call.outcome == bytes(size)


def test_a_call_without_a_window_is_sent_once_it_has_one() -> None:
    with greeted(settings={Setting.INITIAL_WINDOW_SIZE: 0}) as link:
        call = link.ask(b"question")
        link.settle()
        assert len(link.written(Kind.HEADERS, call.stream)) == 1
        assert sent(link, call.stream) == 0
        link.side.h2.increment_flow_control_window(100, call.stream)
        link.settle()
        assert call.outcome == b"question"


def test_a_window_that_is_made_smaller_in_the_midst_of_a_call_is_paid_back_first() -> None:
    with greeted(settings={Setting.INITIAL_WINDOW_SIZE: 60_000}) as link:
        link.side.consumes = False
        call = link.ask(bytes(100_000))
        assert sent(link, call.stream) == 60_000
        link.feed(settings({Setting.INITIAL_WINDOW_SIZE: 1000}))
        link.feed(http2.window_update(call.stream, 59_000))
        assert sent(link, call.stream) == 60_000
        link.feed(http2.window_update(call.stream, 500))
        assert sent(link, call.stream) == 60_500


def test_a_window_that_is_given_back_after_a_short_call_was_sent_is_not_too_wide() -> None:
    """A server may open a window as far as it goes, and give back what it has read of a request that is whole."""
    with greeted(silence, {Setting.INITIAL_WINDOW_SIZE: http2.LARGEST_WINDOW}) as link:
        call = link.ask(bytes(1000))
        link.up()
        link.feed(http2.window_update(call.stream, 1005))
        assert call.open
        link.side.answer(call.stream, b"answer")
        link.down()
        assert call.outcome == b"answer"


def test_a_window_of_a_call_that_is_opened_too_far_ends_that_call_alone() -> None:
    with greeted(silence) as link:
        call, other = link.ask(), link.ask()
        link.up()
        link.feed(http2.window_update(call.stream, http2.LARGEST_WINDOW))
        assert (call.ends, other.ends, link.connection.over) == (1, 0, False)


def test_the_window_of_all_calls_holds_back_long_ones_and_is_shared_by_turns() -> None:
    with greeted(silence, WIDE) as link:
        link.side.consumes = False
        long, short = link.ask(bytes(1 << 20)), link.ask(b"short")
        link.settle()
        assert sent(link, long.stream) == http2.DEFAULT_WINDOW
        link.side.h2.increment_flow_control_window(100)
        link.settle()
        assert link.side.asked[short.stream].whole or sent(link, long.stream) == http2.DEFAULT_WINDOW + 100
        link.side.h2.increment_flow_control_window(http2.LARGEST_FRAME * 2)
        link.settle()
        assert link.side.asked[short.stream].message == b"short"


def test_nothing_of_a_body_is_written_while_the_network_takes_no_more() -> None:
    with greeted(settings=WIDE) as link:
        widened(link)
        link.ask(bytes(1 << 20))
        assert link.wire.paused
        assert link.wire.get_write_buffer_size() <= link.wire.most + http2.LARGEST_FRAME + 9
        others = [link.ask(b"short"), link.ask(bytes(1 << 20))]
        link.side.h2.increment_flow_control_window(1 << 20)
        link.down()
        assert [sent(link, call.stream) for call in others] == [0, 0]
        link.settle()
        assert [call.outcome for call in link.calls] == [call.message for call in link.calls]


def test_nor_is_a_short_one_when_short_ones_have_filled_the_line() -> None:
    with greeted(settings=WIDE) as link:
        widened(link)
        while not link.wire.paused:
            link.ask(bytes(10_000))
        call = link.ask(b"short")
        assert sent(link, call.stream) == 0
        link.settle()
        assert [one.outcome for one in link.calls] == [one.message for one in link.calls]


def test_a_short_call_does_not_wait_for_the_end_of_a_long_one() -> None:
    with greeted(settings=WIDE) as link:
        widened(link)
        long, short = link.ask(bytes(1 << 22)), link.ask(b"short")
        while not short.answer.done():
            link.up(10_000)
            link.down()
        assert sent(link, long.stream) < 200_000
        link.settle()
        assert long.outcome == long.message


def test_frames_as_large_as_a_server_allows_are_not_a_reason_to_wait() -> None:
    """With frames of 16 MB a short call would wait for all of a long one, and a pause of the network would be late."""
    with greeted(settings={**WIDE, Setting.MAX_FRAME_SIZE: (1 << 24) - 1}) as link:
        widened(link)
        long, short = link.ask(bytes(8 << 20)), link.ask(b"short")
        assert link.wire.get_write_buffer_size() < 1 << 20
        link.settle()
        assert [long.outcome, short.outcome] == [long.message, short.message]


def test_a_call_that_is_given_up_halfway_is_sent_no_further() -> None:
    with greeted(settings=WIDE) as link:
        widened(link)
        call, other = link.ask(bytes(1 << 20)), link.ask(bytes(1 << 20))
        link.up(50_000)
        link.connection.give_up(call, BackendTimeout("enough"))
        written = sent(link, call.stream)
        link.settle()
        assert sent(link, call.stream) == written
        assert link.side.resets == {call.stream: http2.Reason.CANCEL}
        assert not link.side.asked[call.stream].whole
        assert other.outcome == other.message


def test_what_a_server_may_remember_of_headers_is_its_own_to_say() -> None:
    """A server whose memory is smaller than usual holds us to saying so first (RFC 7541, section 4.2)."""
    with greeted(settings={Setting.INITIAL_WINDOW_SIZE: 70_000}) as link:
        for table in (0, 100, 4096, 0):
            link.side.settings({Setting.HEADER_TABLE_SIZE: table})
            link.settle()
            call = link.ask(b"question")
            link.settle()
            assert call.outcome == b"question"


def test_settings_and_pings_are_acknowledged_each_once_and_acknowledgements_are_not() -> None:
    with greeted() as link:
        before = len(link.written(Kind.SETTINGS))
        link.side.h2.ping(b"are you?")
        link.side.settings({Setting.MAX_CONCURRENT_STREAMS: 7})
        link.settle()
        link.feed(http2.frame(Kind.PING, http2.ACK, 0, b"unasked!"))
        link.feed(http2.frame(Kind.SETTINGS, http2.ACK, 0, b""))
        assert [(frame.flags, frame.payload) for frame in link.written(Kind.PING)] == [(http2.ACK, b"are you?")]
        assert [(frame.flags, frame.payload) for frame in link.written(Kind.SETTINGS)[before:]] == [(http2.ACK, b"")]


def test_a_server_that_asks_and_does_not_read_is_left_in_the_end() -> None:
    with greeted(silence) as link:
        call = link.ask()
        for _ in range(2000):
            link.feed(http2.frame(Kind.PING, 0, 0, b"are you?") * 100 + settings({}) * 100)
        assert len(link.wire.written) < 2 << 20
        assert isinstance(call.outcome, BackendLost)
        assert link.nothing_is_left()


def test_a_connection_goes_on_for_more_bytes_than_a_window_has() -> None:
    """Answers of two gigabytes together: the window is opened again before it is used up."""
    with greeted(silence) as link:
        call, other = link.ask(), link.ask()
        link.up()
        link.connection._received = (1 << 30) - 1000
        before = len(link.written(Kind.WINDOW_UPDATE))
        link.side.answer(call.stream, bytes(2000))
        link.side.answer(other.stream, bytes(2000))
        link.down()
        (update,) = link.written(Kind.WINDOW_UPDATE)[before:]
        assert (update.stream, int.from_bytes(update.payload, "big")) == (0, (1 << 30) - 1000 + 2005)
        assert call.outcome == other.outcome == bytes(2000)
