"""How calls and connections end: given up, refused, gone away, closed; each once, nothing left."""

from __future__ import annotations

import pytest

from backends import http2
from backends.grpc_call import RpcError
from backends.http2 import Kind, Reason
from router.errors import BackendLost, BackendTimeout, BackendUnavailable
from tests.unit.backends.grpc_server import Setting, echo, silence
from tests.unit.backends.grpc_wire import greeted

ENOUGH = BackendTimeout("enough")


def goaway(last: int, reason: Reason = Reason.NO_ERROR) -> bytes:
    return http2.frame(Kind.GOAWAY, 0, 0, last.to_bytes(4, "big") + int(reason).to_bytes(4, "big"))


def test_a_call_that_waits_for_its_turn_is_sent_when_another_has_ended_the_oldest_first() -> None:
    with greeted(silence, {Setting.MAX_CONCURRENT_STREAMS: 2}) as link:
        calls = [link.ask(bytes((turn,))) for turn in range(5)]
        link.settle()
        assert list(link.side.asked) == [1, 3]
        link.connection.give_up(calls[2], ENOUGH)
        link.side.answer(3, b"answer")
        link.settle()
        assert [asked.message for asked in link.side.asked.values()] == [b"\0", b"\1", b"\3"]
        link.side.settings({Setting.MAX_CONCURRENT_STREAMS: 3})
        link.settle()
        assert link.side.asked[7].message == b"\4"
        assert calls[2].outcome is ENOUGH
        assert not link.side.resets


def test_a_server_that_takes_no_calls_at_first_gets_them_when_it_does() -> None:
    with greeted(settings={Setting.MAX_CONCURRENT_STREAMS: 0}) as link:
        call = link.ask(b"question")
        link.settle()
        assert not link.side.asked
        link.side.settings({Setting.MAX_CONCURRENT_STREAMS: 1})
        link.settle()
        assert call.outcome == b"question"


def test_a_call_that_was_sent_and_is_given_up_ends_on_the_server_and_leaves_its_turn_to_the_next() -> None:
    with greeted(silence, {Setting.MAX_CONCURRENT_STREAMS: 1}) as link:
        first, second = link.ask(b"first"), link.ask(b"second")
        link.settle()
        link.connection.give_up(first, ENOUGH)
        link.settle()
        assert link.side.resets == {first.stream: Reason.CANCEL}
        assert link.side.asked[second.stream].message == b"second"


def test_giving_up_a_call_that_has_ended_does_nothing() -> None:
    with greeted() as link:
        call = link.ask(b"question")
        link.settle()
        link.connection.give_up(call, ENOUGH)
        link.settle()
        assert (call.outcome, call.ends, link.side.resets) == (b"question", 1, {})


def test_what_comes_of_a_call_that_was_given_up_is_passed_over() -> None:
    with greeted() as link:
        call = link.ask(b"question")
        link.up()
        link.connection.give_up(call, ENOUGH)
        link.settle()
        assert (call.outcome, call.ends, link.connection.over) == (ENOUGH, 1, False)
        other = link.ask(b"another")
        link.settle()
        assert other.outcome == b"another"


def test_the_bit_before_a_streams_number_means_nothing() -> None:
    with greeted(silence) as link:
        call = link.ask()
        block = http2.encoded([("grpc-status", "5"), ("grpc-message", "no")])
        flags = http2.END_HEADERS | http2.END_STREAM
        link.feed(http2.frame(Kind.HEADERS, flags, 1 << 31 | call.stream, block))
        assert isinstance(call.outcome, RpcError)
        assert not link.connection.over


def test_an_answer_that_nobody_waits_for_any_more_is_late_and_an_error_is_not() -> None:
    took: list[float] = []
    with greeted() as link:
        call = link.ask(b"question", took.append)
        call.answer.set_result(ENOUGH)
        link.settle()
        assert (len(took), call.ends) == (1, 1)
        assert took[0] > 0
        call = link.ask(b"question", took.append)
        call.answer.cancel()
        link.side.h2.close_connection(last_stream_id=call.stream - 2)
        link.down()
        assert (len(took), call.ends) == (1, 1)
        link.ask(b"question", took.append)
        assert len(took) == 1


def test_a_server_that_goes_away_finishes_what_it_has_begun_and_the_rest_goes_elsewhere() -> None:
    with greeted(silence, {Setting.MAX_CONCURRENT_STREAMS: 4}) as link:
        calls = [link.ask(bytes((turn,))) for turn in range(6)]
        link.up()
        link.feed(goaway(3))
        assert [call.open for call in calls] == [True, True, False, False, False, False]
        assert all(isinstance(call.outcome, BackendUnavailable) for call in calls[2:])
        assert link.over == [link.connection]
        assert isinstance(link.ask().outcome, BackendUnavailable)
        link.side.answer(1, b"first")
        link.side.answer(3, b"second")
        link.settle()
        assert [call.outcome for call in calls[:2]] == [b"first", b"second"]
        assert link.nothing_is_left()
        assert len(link.written(Kind.HEADERS)) == 4, "nothing is begun on a connection that goes away"


def test_a_server_that_goes_away_in_two_steps_may_take_less_in_the_second() -> None:
    """As servers do on shutdown: first no number at all, then, a round trip later, the last one."""
    with greeted(silence) as link:
        calls = [link.ask(bytes((turn,))) for turn in range(3)]
        link.up()
        link.feed(goaway(http2.LAST_STREAM))
        assert [call.open for call in calls] == [True] * 3
        link.feed(goaway(1))
        assert [call.open for call in calls] == [True, False, False]
        link.side.answer(1, b"first")
        link.settle()
        assert calls[0].outcome == b"first"
        assert link.nothing_is_left()
        assert link.over == [link.connection]


def test_a_server_that_goes_away_while_idle_is_left() -> None:
    with greeted() as link:
        link.feed(goaway(0))
        link.up()
        assert link.nothing_is_left()


def test_a_connection_that_retires_takes_no_more_and_finishes_the_rest() -> None:
    with greeted(silence, {Setting.MAX_CONCURRENT_STREAMS: 1}) as link:
        sent, waiting = link.ask(b"sent"), link.ask(b"waiting")
        link.up()
        link.connection.retire()
        link.connection.retire()
        assert isinstance(waiting.outcome, BackendUnavailable)
        assert sent.open
        link.side.answer(sent.stream, b"answer")
        link.settle()
        assert (sent.outcome, link.over) == (b"answer", [link.connection])
        assert link.nothing_is_left()


def test_a_connection_that_is_closed_loses_what_is_under_way() -> None:
    with greeted(silence, {Setting.MAX_CONCURRENT_STREAMS: 1}) as link:
        sent, waiting = link.ask(b"sent"), link.ask(b"waiting")
        link.connection.close("somebody closed it")
        assert isinstance(sent.outcome, BackendLost)
        assert "somebody closed it" in sent.outcome.detail
        assert isinstance(waiting.outcome, BackendUnavailable)
        link.up()
        assert link.nothing_is_left()


@pytest.mark.parametrize("what", ["closed", "retired"])
def test_a_network_that_takes_nothing_any_more_is_not_waited_for(what: str) -> None:
    with greeted(silence, {Setting.INITIAL_WINDOW_SIZE: 1 << 24}) as link:
        link.side.h2.increment_flow_control_window(1 << 24)
        link.down()
        call = link.ask(bytes(1 << 20))
        if what == "retired":
            link.connection.retire()
            link.connection.give_up(call, ENOUGH)
        else:
            link.connection.close("somebody closed it")
        assert link.wire.aborted
        assert link.nothing_is_left()


def test_a_connection_that_is_closed_while_it_waits_to_close_does_not_wait() -> None:
    """A network that takes nothing of the goodbye: what closes it once more means it."""
    with greeted() as link:
        link.connection.retire()
        assert link.wire.is_closing()
        assert not link.wire.aborted
        link.connection.close("the gateway closed it")
        assert link.nothing_is_left()


def test_a_connection_whose_numbers_have_run_out_is_replaced_and_its_last_call_has_its_answer() -> None:
    with greeted() as link:
        link.connection._next = http2.LAST_STREAM - 2
        first, last, none = link.ask(b"first"), link.ask(b"last"), link.ask(b"one too many")
        assert (first.stream, last.stream) == (http2.LAST_STREAM - 2, http2.LAST_STREAM)
        assert isinstance(none.outcome, BackendUnavailable)
        assert link.over == [link.connection]
        link.settle()
        assert (first.outcome, last.outcome) == (b"first", b"last")
        assert link.nothing_is_left()


def test_numbers_that_run_out_while_calls_wait_for_their_turn_send_those_elsewhere() -> None:
    with greeted(echo, {Setting.MAX_CONCURRENT_STREAMS: 1}) as link:
        link.connection._next = http2.LAST_STREAM - 2
        calls = [link.ask(bytes((turn,))) for turn in range(5)]
        link.settle()
        assert [call.outcome for call in calls[:2]] == [b"\0", b"\1"]
        assert all(isinstance(call.outcome, BackendUnavailable) for call in calls[2:])
        assert link.nothing_is_left()
