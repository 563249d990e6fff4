"""The gRPC channel's calls over loopback: deadlines, abandoned calls, connections that go away or fall silent."""

from __future__ import annotations

import asyncio
import time

import pytest

import backends.grpc_channel
from backends.grpc_call import RpcError
from backends.grpc_channel import GrpcChannel
from backends.http2 import Reason
from backends.server import MAX_MESSAGE_BYTES, RENEW_AFTER
from router.errors import BackendLost, BackendTimeout, BackendUnavailable
from tests.unit.backends.grpc_server import (
    SERVICE,
    Setting,
    Standin,
    channel_to,
    echo,
    fails,
    grpc_server,
    silence,
    under_both_loops,
    until,
)


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


async def left_alone(channel: GrpcChannel, standin: Standin, took: list[float], message: bytes = b"left") -> None:
    """Asks to the end, and goes away once the server has the request."""
    before = len(standin.asked)
    waiting = asyncio.create_task(channel.ask_to_the_end("Infer", message, soon(), took.append))
    await until(lambda: len(standin.asked) > before and standin.asked[-1].whole)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@under_both_loops
async def test_a_call_says_what_it_asks_whom_and_how_long_it_will_wait() -> None:
    async with grpc_server() as standin, channel_to(standin.url) as channel:
        assert await channel.ask("Infer", b"question", soon(30)) == b"question"
        assert await channel.ask_to_the_end("Infer", b"question", soon(30), None) == b"question"
        first, second = (asked.headers for asked in standin.asked)
        assert first[":method"] == "POST"
        assert first[":path"] == f"/{SERVICE}/Infer"
        assert first[":scheme"] == "http"
        assert first[":authority"] == f"127.0.0.1:{standin.port}"
        assert (first["te"], first["content-type"]) == ("trailers", "application/grpc")
        assert 20_000 < int(first["grpc-timeout"].removesuffix("m")) <= 30_001
        assert 30_001 < int(second["grpc-timeout"].removesuffix("m")) <= 32_001, "it is let end by itself"


@under_both_loops
async def test_many_calls_at_once_share_a_connection_and_each_has_its_own_answer() -> None:
    async with (
        grpc_server(settings={Setting.MAX_CONCURRENT_STREAMS: 7}) as standin,
        channel_to(standin.url) as channel,
    ):
        messages = [bytes((turn,)) * (turn * turn * 5) for turn in range(100)]
        answers = await asyncio.gather(*(channel.ask("Infer", message, soon()) for message in messages))
        assert answers == messages
        assert len(standin.visits) == 1


@under_both_loops
async def test_what_the_server_says_of_a_call_is_raised() -> None:
    script = fails("5", ("grpc-message", "no such m%C3%B6del"))
    async with grpc_server(script) as standin, channel_to(standin.url) as channel:
        with pytest.raises(RpcError, match="NOT_FOUND: no such mödel"):
            await channel.ask("Infer", b"question", soon())


@under_both_loops
async def test_a_deadline_that_has_passed_and_a_message_that_is_too_large_are_not_sent() -> None:
    async with grpc_server() as standin, channel_to(standin.url) as channel:
        with pytest.raises(BackendTimeout):
            await channel.ask("Infer", b"question", soon(-1))
        with pytest.raises(RpcError, match="RESOURCE_EXHAUSTED"):
            await channel.ask("Infer", bytes(MAX_MESSAGE_BYTES + 1), soon())
        assert standin.visits == []


@under_both_loops
async def test_a_call_that_is_not_answered_in_time_is_cancelled_on_the_server() -> None:
    async with grpc_server() as standin, channel_to(standin.url) as channel:
        await channel.ask("Infer", b"question", soon())
        standin.visits[0].side.script = silence
        with pytest.raises(BackendTimeout, match="did not answer in time"):
            await channel.ask("Infer", b"question", soon(0.2))
        await until(lambda: standin.visits[0].side.resets == {3: Reason.CANCEL})


@under_both_loops
async def test_a_caller_that_hangs_up_cancels_its_call_on_the_server_and_no_other() -> None:
    async with grpc_server(silence) as standin, channel_to(standin.url) as channel:
        asked = [asyncio.create_task(channel.ask("Infer", b"question", soon())) for _ in range(3)]
        await until(lambda: len(standin.asked) == 3)
        asked[1].cancel()
        (side,) = (visit.side for visit in standin.visits)
        await until(lambda: side.resets == {3: Reason.CANCEL})
        side.answer(1, b"first")
        side.answer(5, b"third")
        standin.visits[0].flush()
        assert (await asked[0], await asked[2]) == (b"first", b"third")
        assert asked[1].cancelled()


@under_both_loops
async def test_a_call_that_is_asked_to_the_end_goes_on_alone_and_says_how_long_it_took() -> None:
    took: list[float] = []
    async with grpc_server(silence) as standin, channel_to(standin.url) as channel:
        await left_alone(channel, standin, took)
        with pytest.raises(BackendTimeout):
            await channel.ask_to_the_end("Infer", b"left too", soon(0.05), took.append)
        (visit,) = standin.visits
        assert not took
        assert not visit.side.resets
        await asyncio.sleep(0.05)
        visit.side.answer(1, b"answer")
        visit.side.trailers_only(3)
        visit.flush()
        await until(lambda: took)
        assert took[0] >= 0.05
        assert await later(channel, standin) == b"answer"
        assert len(took) == 1, "an error is no answer"


async def later(channel: GrpcChannel, standin: Standin) -> bytes:
    """A call after all others, answered by hand."""
    before = len(standin.asked)
    asked = asyncio.create_task(channel.ask("Infer", b"later", soon()))
    await until(lambda: len(standin.asked) > before and standin.asked[-1].whole)
    standin.visits[-1].side.answer(standin.asked[-1].stream, b"answer")
    standin.visits[-1].flush()
    return await asked


@under_both_loops
async def test_a_call_that_was_left_alone_is_cancelled_on_the_server_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends.grpc_channel, "ABANDONED_FOR_S", 0.2)
    took: list[float] = []
    async with grpc_server(silence) as standin, channel_to(standin.url) as channel:
        started = time.monotonic()
        await left_alone(channel, standin, took)
        await until(lambda: standin.visits[0].side.resets)
        assert time.monotonic() - started >= 0.2
        assert took == []


@under_both_loops
async def test_a_call_that_nobody_waits_for_any_more_is_not_sent_when_its_turn_comes() -> None:
    one = {Setting.MAX_CONCURRENT_STREAMS: 1}
    async with grpc_server(silence, one) as standin, channel_to(standin.url) as channel:
        first = asyncio.create_task(channel.ask("Infer", b"first", soon()))
        await until(lambda: standin.asked)
        with pytest.raises(BackendTimeout):
            await channel.ask("Infer", b"second", soon(0.05))
        with pytest.raises(BackendTimeout):
            await channel.ask_to_the_end("Infer", b"third", soon(0.05), None)
        standin.visits[0].side.answer(1, b"answer")
        standin.visits[0].flush()
        assert await first == b"answer"
        await later(channel, standin)
        assert [asked.message for asked in standin.asked] == [b"first", b"later"]


@under_both_loops
async def test_a_server_that_closes_the_connection_loses_what_is_under_way_and_is_connected_to_again() -> None:
    async with grpc_server(silence) as standin, channel_to(standin.url) as channel:
        asked = asyncio.create_task(channel.ask("Infer", b"question", soon()))
        await until(lambda: standin.asked)
        standin.visits[0].transport.close()
        with pytest.raises(BackendLost, match="closed the connection"):
            await asked
        standin.script = echo
        for turn in range(3):
            assert await channel.ask("Infer", b"question", soon()) == b"question"
            standin.visits[-1].transport.close()
            await until(lambda: channel._connection is None)
            assert len(standin.visits) == turn + 2


@under_both_loops
async def test_a_server_that_goes_away_finishes_old_calls_while_new_ones_go_elsewhere() -> None:
    async with grpc_server(silence) as standin, channel_to(standin.url) as channel:
        old, refused = (asyncio.create_task(channel.ask("Infer", bytes(8), soon())) for _ in range(2))
        await until(lambda: len(standin.asked) == 2)
        first = standin.visits[0]
        standin.script = echo
        first.transport.write(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\1\0\0\0\0")
        with pytest.raises(BackendUnavailable, match="going away"):
            await refused
        assert await channel.ask("Infer", b"new", soon()) == b"new"
        assert (len(standin.visits), old.done(), first.lost.done()) == (2, False, False)
        first.side.answer(1, b"old")
        first.flush()
        assert await old == b"old"
        await first.lost


@under_both_loops
async def test_a_connection_that_has_fallen_silent_is_replaced_after_some_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends.grpc_channel, "SILENT_S", 0.1)
    async with grpc_server() as standin, channel_to(standin.url) as channel:
        await channel.ask("Infer", b"question", soon())
        standin.speaks = False
        for _ in range(RENEW_AFTER):
            assert len(standin.visits) == 1
            with pytest.raises(BackendTimeout):
                await channel.ask("Infer", b"question", soon(0.1))
        standin.speaks = True
        assert await channel.ask("Infer", b"question", soon()) == b"question"
        assert len(standin.visits) == 2
        await standin.visits[0].lost


@under_both_loops
async def test_a_connection_is_not_replaced_while_anything_comes_nor_because_callers_hang_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends.grpc_channel, "SILENT_S", 0.0)
    async with grpc_server(silence) as standin, channel_to(standin.url) as channel:
        for turn in range(RENEW_AFTER + 3):
            asked = asyncio.create_task(channel.ask("Infer", b"question", soon()))
            await until(lambda so_far=turn: len(standin.asked) > so_far)  # type: ignore[misc]
            asked.cancel()
            await asyncio.wait((asked,))
        (visit,) = standin.visits
        for _ in range(RENEW_AFTER + 3):
            with pytest.raises(BackendTimeout):
                await channel.ask("Infer", b"question", soon(0.02))
            visit.side.h2.ping(b"i am up!")
            visit.flush()
            assert channel._connection is not None
            heard = channel._connection
            await until(lambda of=heard: of.unheard == 0)  # type: ignore[misc]
        assert len(standin.visits) == 1


@under_both_loops
async def test_a_connection_that_was_heard_a_moment_ago_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.grpc_channel, "SILENT_S", 60.0)
    async with grpc_server() as standin, channel_to(standin.url) as channel:
        await channel.ask("Infer", b"question", soon())
        standin.speaks = False
        asked = [channel.ask("Infer", b"question", soon(0.1)) for _ in range(RENEW_AFTER * 3)]
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(end) for end in ends} == {BackendTimeout}
        assert channel._connection is not None
        assert len(standin.visits) == 1


@under_both_loops
async def test_closing_waits_a_while_for_calls_that_were_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    took: list[float] = []
    monkeypatch.setattr(backends.grpc_channel, "CLOSE_GRACE_S", 20.0)
    async with grpc_server(silence) as standin:
        channel = GrpcChannel(standin.url, SERVICE)
        await left_alone(channel, standin, took)
        closing = asyncio.create_task(channel.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        standin.visits[0].side.answer(1, b"answer")
        standin.visits[0].flush()
        await closing
        assert len(took) == 1
        await standin.visits[0].lost


@under_both_loops
async def test_closing_does_not_wait_for_ever_and_nothing_can_be_asked_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends.grpc_channel, "CLOSE_GRACE_S", 0.05)
    async with grpc_server(silence) as standin:
        channel = GrpcChannel(standin.url, SERVICE)
        await left_alone(channel, standin, [])
        asked = asyncio.create_task(channel.ask("Infer", b"question", soon()))
        await until(lambda: len(standin.asked) == 2)
        await channel.close()
        with pytest.raises(BackendLost, match="closed it"):
            await asked
        await standin.visits[0].lost
        with pytest.raises(BackendUnavailable, match="closed"):
            await channel.ask("Infer", b"question", soon())
        await channel.close()
        assert len(standin.visits) == 1
