"""The gRPC channel and a server that others have written: grpcio's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from backends.grpc_call import RpcError
from backends.server import MAX_MESSAGE_BYTES
from router.errors import BackendError, BackendTimeout, BackendUnavailable
from tests.unit.backends.grpc_server import SERVICE, channel_to, until


@dataclass
class Peer:
    """A server on loopback.

    Attributes:
        port: Where it is.
        server: The server.
        hold: Calls of `Wait` are answered once this is set.
        waiting: How many have come.
        cancelled: How many were cancelled.
    """

    port: int = 0
    server: Any = None
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    cancelled: int = 0

    async def echo(self, request: bytes, _: Any) -> bytes:
        """Answers with the request."""
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        """Fails."""
        await context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.decode()}, 100% sure")
        raise AssertionError

    async def wait(self, request: bytes, _: Any) -> bytes:
        """Answers in its own time."""
        self.waiting += 1
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return request


@asynccontextmanager
async def grpcio(**options: int) -> AsyncIterator[Peer]:
    """Runs one, with these options of grpcio's."""
    peer = Peer()
    sizes = {"max_receive_message_length": MAX_MESSAGE_BYTES, "max_send_message_length": MAX_MESSAGE_BYTES}
    peer.server = grpc.aio.server(options=[(f"grpc.{name}", value) for name, value in {**sizes, **options}.items()])
    methods = {"Infer": peer.echo, "Fail": peer.fail, "Wait": peer.wait}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    peer.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    peer.port = peer.server.add_insecure_port("127.0.0.1:0")
    await peer.server.start()
    try:
        yield peer
    finally:
        await peer.server.stop(None)


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


@pytest.mark.parametrize("options", [{}, {"http2.max_frame_size": 1 << 20}])
async def test_two_hundred_calls_at_once(options: dict[str, int]) -> None:
    async with grpcio(**options) as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        messages = [bytes((turn,)) * (turn * 100) for turn in range(200)]
        assert await asyncio.gather(*(channel.ask("Infer", one, soon()) for one in messages)) == messages


async def test_calls_beyond_what_it_takes_at_once_have_an_answer_when_those_that_it_refuses_are_asked_again() -> None:
    """It counts a call for some moments after its end, and refuses the next one though that keeps to the limit."""

    async def answered(message: bytes) -> bytes:
        while True:
            with suppress(BackendUnavailable):
                return await channel.ask("Infer", message, soon())

    async with grpcio(max_concurrent_streams=5) as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        messages = [bytes((turn,)) * (turn * 100) for turn in range(200)]
        assert await asyncio.gather(*map(answered, messages)) == messages


async def test_twenty_megabytes_both_ways_and_short_calls_beside_them() -> None:
    async with grpcio() as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        long = asyncio.create_task(channel.ask("Infer", bytes(20 << 20), soon()))
        shorts = [await channel.ask("Infer", b"short", soon()) for _ in range(10)]
        assert shorts == [b"short"] * 10
        assert await long == bytes(20 << 20)


async def test_its_statuses_and_deadlines() -> None:
    async with grpcio() as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        with pytest.raises(RpcError) as caught:
            await channel.ask("Fail", "Modell für alle".encode(), soon())
        assert (caught.value.code, caught.value.detail) == (
            grpc.StatusCode.NOT_FOUND,
            "no Modell für alle, 100% sure",
        )
        with pytest.raises(RpcError) as caught:
            await channel.ask("Other", b"question", soon())
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises((BackendTimeout, RpcError)) as late:
            await channel.ask("Wait", b"question", soon(0.1))
        assert not isinstance(late.value, RpcError) or late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: peer.cancelled == 1)


async def test_a_caller_that_hangs_up_cancels_its_call() -> None:
    async with grpcio() as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        waiting = asyncio.create_task(channel.ask("Wait", b"question", soon()))
        await until(lambda: peer.waiting)
        waiting.cancel()
        await until(lambda: peer.cancelled == 1)
        assert await channel.ask("Infer", b"question", soon()) == b"question"


@pytest.mark.parametrize("survives", [None, False, True])
async def test_what_is_to_end_by_itself_is_cancelled_if_its_caller_left_and_the_server_survives_it(
    survives: bool | None,
) -> None:
    late: list[float] = []
    async with grpcio() as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        waiting = asyncio.create_task(channel.ask_to_the_end("Wait", b"question", soon(), late.append))
        await until(lambda: peer.waiting)
        assert channel.connection is not None
        channel.connection.survives_cancelling = survives
        waiting.cancel()
        if survives:
            await until(lambda: peer.cancelled == 1)
        else:
            assert await channel.ask("Infer", b"question", soon()) == b"question"
            peer.hold.set()
            await until(lambda: late)
        assert (peer.cancelled, len(late)) == ((1, 0) if survives else (0, 1))


async def test_what_is_cut_off_at_its_deadline_ends_by_itself_and_says_how_late_it_was() -> None:
    """Whichever of two timers for the same moment cuts it off: the channel's own, or its caller's."""
    late: list[float] = []
    async with grpcio() as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        await channel.ask("Infer", b"question", soon())
        assert channel.connection is not None
        channel.connection.survives_cancelling = True
        for turn in range(5):
            limit = asyncio.get_running_loop().time() + 0.1
            with suppress(BackendTimeout, TimeoutError):
                async with asyncio.timeout_at(limit if turn % 2 else None):
                    await channel.ask_to_the_end("Wait", b"question", limit, late.append)
        assert peer.waiting == 5
        peer.hold.set()
        await until(lambda: len(late) == 5)
        assert not peer.cancelled


async def test_a_server_that_shuts_down_finishes_what_it_has_begun_and_takes_nothing_new() -> None:
    async with grpcio() as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        begun = [asyncio.create_task(channel.ask("Wait", bytes((turn,)), soon())) for turn in range(5)]
        await until(lambda: peer.waiting == 5)
        stopping = asyncio.create_task(peer.server.stop(20))
        await until(lambda: channel._connection is None)
        with pytest.raises(BackendUnavailable):
            await channel.ask("Infer", b"question", soon())
        peer.hold.set()
        assert await asyncio.gather(*begun) == [bytes((turn,)) for turn in range(5)]
        await stopping


async def test_calls_during_a_restart_have_an_answer_or_a_word() -> None:
    async with grpcio(so_reuseport=1) as peer, channel_to(f"grpc://127.0.0.1:{peer.port}") as channel:
        ends: list[Any] = []

        async def ask_on() -> None:
            while not peer.hold.is_set():
                ends.extend(await asyncio.gather(channel.ask("Infer", b"question", soon()), return_exceptions=True))
                await asyncio.sleep(0)

        asking = [asyncio.create_task(ask_on()) for _ in range(5)]
        await until(lambda: len(ends) > 50)
        await peer.server.stop(1)
        await until(lambda: any(end != b"question" for end in ends))
        peer.hold.set()
        await asyncio.gather(*asking)
        assert all(end == b"question" or isinstance(end, BackendError | RpcError) for end in ends)
