"""What a gRPC connection makes of each way in which a server, or what stands before it, may answer a call."""

from __future__ import annotations

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from backends import http2
from backends.grpc_call import RpcError
from backends.http2 import Kind, Reason
from backends.server import MAX_MESSAGE_BYTES
from router.errors import BackendUnavailable
from tests.unit.backends.grpc_server import HEADERS, Asked, Script, ServerSide, Setting, echo, fails, silence
from tests.unit.backends.grpc_wire import WatchedCall, greeted


def failure(script: Script) -> RpcError:
    """The error that a call ends in, after which the connection is as good as before."""
    scripts = [script, echo]
    with greeted(lambda side, asked: scripts.pop(0)(side, asked)) as link:
        call = link.ask(b"question")
        link.settle()
        error = call.outcome
        assert isinstance(error, RpcError)
        assert call.ends == 1
        assert works(link.ask(b"another"), link.settle)
        link.connection.retire()
        link.settle()
        assert link.nothing_is_left()
        return error


def works(call: WatchedCall, settle: object) -> bool:
    """Whether a call has its answer once all bytes have gone their way."""
    assert callable(settle)
    settle()
    return call.outcome == call.message


def parts(*content: bytes, trailers: bool = True) -> Script:
    """Answers such parts, in a frame each."""

    def script(side: ServerSide, asked: Asked) -> None:
        side.h2.send_headers(asked.stream, HEADERS)
        for part in content:
            side.h2.send_data(asked.stream, part)
        if trailers:
            side.trailers(asked.stream)
        else:
            side.h2.end_stream(asked.stream)

    return script


def http(status: str, content_type: str = "text/html", *, ended: bool = False, more: str = "") -> Script:
    """Answers as a server of web pages does."""

    def script(side: ServerSide, asked: Asked) -> None:
        headers = [(":status", status), ("content-type", content_type), *([("grpc-status", more)] if more else [])]
        side.h2.send_headers(asked.stream, headers, end_stream=ended)
        if not ended:
            side.h2.send_data(asked.stream, b"<html>Bad Gateway</html>", end_stream=True)

    return script


def reset(reason: int) -> Script:
    """Breaks the call off."""
    return lambda side, asked: side.h2.reset_stream(asked.stream, reason)


def test_every_status_of_grpc_arrives_in_trailers_and_without_an_answer() -> None:
    def after_headers(side: ServerSide, asked: Asked) -> None:
        side.h2.send_headers(asked.stream, HEADERS)
        side.trailers(asked.stream, ("grpc-message", "no"), status=asked.message.decode())

    for code in StatusCode:
        number = str(code.value[0])
        if code is not StatusCode.OK:
            error = failure(fails(number, ("grpc-message", "no")))
            assert (error.code, error.detail) == (code, "no")
            with greeted(after_headers) as link:
                call = link.ask(number.encode())
                link.settle()
                assert isinstance(call.outcome, RpcError)
                assert (call.outcome.code, call.outcome.detail) == (code, "no")


@pytest.mark.parametrize("status", ["17", "-1", "", "ok", "1000000000000"])
def test_a_status_that_there_is_none_of_is_unknown(status: str) -> None:
    assert failure(fails(status)).code is StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("no%20such%20m%C3%B6del", "no such mödel"),
        ("%E2%82%AC", "€"),
        ("100% sure %", "100% sure %"),
        ("%FF", "\N{REPLACEMENT CHARACTER}"),
        ("", ""),
    ],
)
def test_what_a_server_says_is_read_as_it_was_meant(sent: str, said: str) -> None:
    assert failure(fails("3", ("grpc-message", sent))).detail == said


@given(st.text(max_size=30))
def test_any_sentence_arrives(sentence: str) -> None:
    sent = "".join(chr(byte) if 0x20 < byte < 0x7F and byte != 0x25 else f"%{byte:02X}" for byte in sentence.encode())
    assert failure(fails("13", ("grpc-message", sent))).detail == sentence


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("400", StatusCode.INTERNAL),
        ("401", StatusCode.UNAUTHENTICATED),
        ("403", StatusCode.PERMISSION_DENIED),
        ("404", StatusCode.UNIMPLEMENTED),
        ("429", StatusCode.UNAVAILABLE),
        ("502", StatusCode.UNAVAILABLE),
        ("503", StatusCode.UNAVAILABLE),
        ("504", StatusCode.UNAVAILABLE),
        ("500", StatusCode.UNKNOWN),
        ("302", StatusCode.UNKNOWN),
        ("200", StatusCode.UNKNOWN),
    ],
)
@pytest.mark.parametrize("ended", [False, True], ids=["with a page", "without"])
def test_a_proxy_that_answers_itself_is_said_to_be_none_and_its_status_is_told(
    status: str, code: StatusCode, ended: bool
) -> None:
    error = failure(http(status, ended=ended))
    assert error.code is code
    assert f"HTTP status {status}" in error.detail
    assert "text/html" in error.detail


def test_a_status_of_grpc_says_more_than_one_of_http() -> None:
    assert failure(http("503", "application/grpc", ended=True, more="8")).code is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_an_answer_of_another_type_is_none(kind: str) -> None:
    assert "no gRPC server" in failure(http("200", kind)).detail


MESSAGE = b"\0\0\0\0\x03abc"


@pytest.mark.parametrize(
    "content",
    [
        (MESSAGE, MESSAGE),
        (MESSAGE + MESSAGE,),
        (b"\1\0\0\0\x03abc",),
        (b"\0\0\0\0\x04abc",),
        (b"\0\0\0\0\x02abc",),
        (b"\0\0\0\0",),
        (b"",),
        (),
    ],
    ids=["two", "two in one frame", "compressed", "short", "long", "half a prefix", "an empty frame", "none"],
)
def test_what_is_not_one_message_is_a_failure_though_the_status_is_good(content: tuple[bytes, ...]) -> None:
    error = failure(parts(*content))
    assert error.code is StatusCode.INTERNAL
    assert "not one message" in error.detail


@pytest.mark.parametrize("content", [(MESSAGE,), ()])
def test_an_answer_without_trailers_is_a_failure(content: tuple[bytes, ...]) -> None:
    error = failure(parts(*content, trailers=False))
    assert error.code is StatusCode.INTERNAL
    assert "without a status" in error.detail


def test_trailers_without_a_status_are_a_failure() -> None:
    def script(side: ServerSide, asked: Asked) -> None:
        side.h2.send_headers(asked.stream, HEADERS)
        side.h2.send_headers(asked.stream, [("x-more", "words")], end_stream=True)

    assert "without a status" in failure(script).detail


def test_a_message_in_many_frames_some_of_them_empty_is_one_message() -> None:
    with greeted(parts(b"\0\0", b"", b"\0\0\x03", b"a", b"", b"bc")) as link:
        call = link.ask()
        link.settle()
        assert call.outcome == b"abc"


def test_words_before_the_answer_are_passed_over() -> None:
    def script(side: ServerSide, asked: Asked) -> None:
        side.h2.send_headers(asked.stream, [(":status", "103"), ("link", "</style.css>")])
        side.h2.send_headers(asked.stream, [(":status", "100")])
        side.answer(asked.stream, b"answer")

    with greeted(script) as link:
        call = link.ask()
        link.settle()
        assert call.outcome == b"answer"


def test_an_answer_that_is_too_large_is_broken_off_and_not_kept() -> None:
    with greeted(silence) as link:
        call = link.ask()
        link.up()
        link.side.h2.send_headers(call.stream, HEADERS)
        link.down()
        part = http2.frame(Kind.DATA, 0, call.stream, bytes(http2.LARGEST_FRAME)) * 64
        for _ in range((MAX_MESSAGE_BYTES >> 20) + 1):
            link.feed(part)
        assert isinstance(call.outcome, RpcError)
        assert call.outcome.code is StatusCode.RESOURCE_EXHAUSTED
        link.settle()
        assert link.side.resets == {call.stream: Reason.CANCEL}
        assert link.connection._calls == {}


def test_frames_without_content_cost_nothing() -> None:
    """A server may send as many of them as it likes: only an answer's own bytes are kept."""
    with greeted(silence) as link:
        call = link.ask()
        link.up()
        link.side.h2.send_headers(call.stream, HEADERS)
        link.down()
        for _ in range(20):
            link.feed(http2.frame(Kind.DATA, 0, call.stream, b"") * 100)
        assert len(call._parts) < 100


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.NO_ERROR, StatusCode.INTERNAL),
        (Reason.PROTOCOL_ERROR, StatusCode.INTERNAL),
        (Reason.INTERNAL_ERROR, StatusCode.INTERNAL),
        (Reason.CANCEL, StatusCode.CANCELLED),
        (Reason.ENHANCE_YOUR_CALM, StatusCode.RESOURCE_EXHAUSTED),
        (Reason.INADEQUATE_SECURITY, StatusCode.PERMISSION_DENIED),
        (Reason.HTTP_1_1_REQUIRED, StatusCode.INTERNAL),
        (12345, StatusCode.INTERNAL),
    ],
)
def test_each_reason_to_break_a_call_off_has_its_status(reason: int, code: StatusCode) -> None:
    error = failure(reset(reason))
    assert error.code is code
    assert f"reason {int(reason)} " in error.detail


def test_a_call_that_was_refused_was_not_begun_and_may_go_elsewhere() -> None:
    with greeted(reset(Reason.REFUSED_STREAM)) as link:
        call = link.ask()
        link.settle()
        assert isinstance(call.outcome, BackendUnavailable)
        assert not link.connection.over


def test_a_header_that_is_no_text_costs_no_other_call() -> None:
    """A proxy's own header may have any bytes of 0x80 and above (RFC 9110, section 5.5)."""
    block = http2.encoded(HEADERS) + b"\x00\x06server\x03f\xfcr"
    with greeted(silence) as link:
        call, other = link.ask(), link.ask()
        link.up()
        link.feed(http2.frame(Kind.HEADERS, http2.END_HEADERS, call.stream, block))
        link.feed(http2.frame(Kind.DATA, 0, call.stream, MESSAGE))
        assert other.open
        trailers = http2.encoded([("grpc-status", "0")])
        link.feed(http2.frame(Kind.HEADERS, http2.END_HEADERS | http2.END_STREAM, call.stream, trailers))
        assert call.outcome == b"abc"


@pytest.mark.parametrize("resets", [False, True], ids=["and waits", "and resets"])
def test_an_answer_may_come_before_the_request_is_whole(resets: bool) -> None:
    def script(side: ServerSide, asked: Asked) -> None:
        side.answer(asked.stream, b"enough")
        if resets:
            side.h2.reset_stream(asked.stream, Reason.NO_ERROR)

    with greeted(silence, {Setting.INITIAL_WINDOW_SIZE: 100_000}, at_head=script) as link:
        link.side.consumes = False
        call = link.ask(bytes(400_000))
        link.up(1000)
        link.down()
        assert call.outcome == b"enough"
        written = sum(len(frame.payload) for frame in link.written(Kind.DATA, call.stream))
        link.settle()
        link.side.h2.increment_flow_control_window(1 << 20)
        link.settle()
        assert sum(len(frame.payload) for frame in link.written(Kind.DATA, call.stream)) == written
        assert [frame.payload for frame in link.written(Kind.RST_STREAM)] == [b"\0\0\0\x08"]
