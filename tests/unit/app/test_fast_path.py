"""Who shares a run, what is remembered of heads, and what becomes of connections on the short way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from socket import create_server, socket

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.fast_path import LONGEST_HEAD, MOST_HEADS
from tests.unit.app.doors import House, house
from tests.unit.app.wire import Client, connected, cut, eventually, in_real_time, native, post
from tests.unit.standins import answer, hang

READ_AHEAD = 256 << 10
"""More than a loop may take of what comes, or keep of what goes, of one connection that does not read."""


@asynccontextmanager
async def crowd(port: int, count: int) -> AsyncIterator[list[Client]]:
    """So many connections, on each of which something was answered."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port)) for _ in range(count)]
        for client in clients:
            assert (await client.ask(post(native(0.5)))).score() == 0.5
        yield clients


@in_real_time
async def test_requests_of_one_turn_share_a_run_and_each_gets_its_own_answer() -> None:
    async with house() as of, of.door() as door, crowd(door.port, 40) as clients:
        of.lab.quick.shared_by.clear()
        for number, client in enumerate(clients):
            client.send(post(native(number)))
        assert [(await client.answer()).score() for client in clients] == list(range(40))
        assert max(of.lab.quick.shared_by) > 1
        assert of.lab.seen.ends == (80, 0, 0)


@pytest.mark.parametrize("bad", range(5))
@in_real_time
async def test_a_bad_request_among_them_fails_alone(bad: int) -> None:
    async with house() as of, of.door() as door, crowd(door.port, 5) as clients:
        for number, client in enumerate(clients):
            client.send(post(b"{" if number == bad else native(number, "slow" if number == 3 else "quick")))
        answers = [await client.answer() for client in clients]
        assert [found.status for found in answers] == [400 if number == bad else 200 for number in range(5)]
        assert [found.score() for found in answers if found.status == 200] == [n for n in range(5) if n != bad]
        assert [error.code for error in of.errors] == ["malformed-body"]


@in_real_time
async def test_a_client_that_leaves_among_them_leaves_alone() -> None:
    async with house() as of, of.door() as door, crowd(door.port, 5) as clients:
        for number, client in enumerate(clients):
            client.send(post(native(number)))
            if number == 2:
                client.transport.close()
        assert [(await c.answer()).score() for n, c in enumerate(clients) if n != 2] == [0, 1, 3, 4]
        await eventually(lambda: len(door.state.connections) == 4)


@in_real_time
async def test_heads_that_are_remembered_stay_few_and_short() -> None:
    async with house() as of, of.door() as door, connected(door.port) as client:
        heads = of.fast_path.heads
        for number in range(MOST_HEADS + 10):
            found = await client.ask(post(native(number), f"X-Request-Id: {number}"))
            assert found.score() == number
            assert len(heads) == min(number + 1, (number % MOST_HEADS) + 1)
        for _ in range(2):
            assert (await client.ask(post(native(1.0), f"X-Long: {'x' * LONGEST_HEAD}"))).score() == 1.0
        assert len(heads) == 10
        assert all(len(raw) <= LONGEST_HEAD for raw in heads)


@pytest.mark.parametrize("apart", [False, True], ids=["whole", "head and body apart"])
@in_real_time
async def test_a_hang_up_cancels_the_work_and_leaves_nothing(apart: bool) -> None:
    async with house() as of, of.door() as door:
        of.lab.cloud.infer = hang
        for count in (1, 2):  # a head that is unknown, one that is known
            async with connected(door.port) as client:
                for part in cut(post(native(1.0, "slow"))) if apart else (post(native(1.0, "slow")),):
                    client.send(part)
                    await asyncio.sleep(0.005)
                await eventually(lambda: len(of.lab.cloud.calls) == count)  # noqa: B023 called at once
                assert len(door.state.tasks) == 1
            await eventually(lambda: of.lab.cloud.cancelled == count)  # noqa: B023
            await eventually(lambda: not door.state.connections and not door.state.tasks)
            assert of.lab.seen.ends == (0, 0, count)
        assert of.errors == []


@pytest.mark.parametrize("headers", [(), ("X-New: 1",)], ids=["known head", "unknown head"])
@pytest.mark.parametrize("body_bytes", [0, 5])
@in_real_time
async def test_a_hang_up_in_the_middle_of_a_body_is_not_even_a_request(
    body_bytes: int, headers: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with house() as of, of.door() as door:
        async with connected(door.port) as client:
            await client.ask(post(native(1.0)))
            client.send(cut(post(native(1.0), *headers), body_bytes)[0])
            await asyncio.sleep(0.01)
        await eventually(lambda: not door.state.connections)
        await asyncio.sleep(0.12)  # until a body that is slow to come takes the long way
        assert not door.state.tasks
        assert of.lab.seen.ends == (1, 0, 0)
        assert "asyncio" not in {record.name for record in caplog.records}, "nothing failed beside"


@pytest.mark.parametrize("known", [False, True], ids=["unknown head", "known head"])
@pytest.mark.parametrize("body_bytes", [0, 5])
@in_real_time
async def test_a_body_that_stops_coming_is_a_408_and_what_follows_it_is_read_aright(
    known: bool, body_bytes: int
) -> None:
    async with house(body_timeout_s=0.2) as of, of.door() as door, connected(door.port) as client:
        if known:
            await client.ask(post(native(1.0)))
        begin, rest = cut(post(native(2.0)), body_bytes)
        refusal = await client.ask(begin)
        assert refusal.status == 408
        assert refusal.headers["content-type"] == "application/problem+json"
        assert [error.code for error in of.errors] == ["body-timeout"]
        client.send(rest)
        assert (await client.ask(post(native(3.0)))).score() == 3.0


@in_real_time
async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async with house() as of, of.door(keep_alive_s=0.4) as door, connected(door.port) as client:
        of.lab.cloud.infer = answer(after=0.6)
        async with connected(door.port) as idle:
            await client.ask(post(native(1.0)))
            await idle.ask(post(native(1.0)))
            for path in ("/infer", "/infer?"):
                found = await client.ask(post(native(2.0, "slow"), path=path))
                assert found.status == 200, "it took longer than an idle connection is kept"
            assert await idle.rest() == []
        for number in range(5):
            await asyncio.sleep(0.12)
            assert (await client.ask(post(native(number)))).score() == number
        assert await client.rest() == []
        await eventually(lambda: not door.state.connections)


@in_real_time
async def test_a_client_that_does_not_read_is_not_answered_until_it_does() -> None:
    """It sends each request in a turn of its own: several at once take the long way, behind each other."""
    rows = [[0.0, 0.0]] * 300
    async with house() as of, of.door() as door, connected(door.port) as client:
        client.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        while len(of.lab.seen.answers) == sent < 5000:
            rows[0] = [float(sent), 0.0]
            client.send(post(b'{"model":"quick","inputs":{"x":%b}}' % repr(rows).encode()))
            sent += 1
            for _ in range(50):
                await asyncio.sleep(0)
                if len(of.lab.seen.answers) == sent:
                    break
        (connection,) = door.state.connections
        assert isinstance(connection, HttpToolsProtocol)
        assert connection.transport.get_write_buffer_size() < READ_AHEAD
        client.transport.resume_reading()  # type: ignore[attr-defined]
        assert [(await client.answer()).score() for _ in range(sent)] == list(range(sent))


@asynccontextmanager
async def served(of: House, listener: socket) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Served as it is in earnest; told to end, if it was not yet."""
    server = uvicorn.Server(of.config())
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 5)


@in_real_time
async def test_an_answer_tells_the_date_and_that_goes_on() -> None:
    async with house() as of, served(of, create_server(("127.0.0.1", 0))) as (_, port), connected(port) as client:
        first = (await client.ask(post(native(1.0)))).headers["date"]
        await asyncio.sleep(1.5)
        assert (await client.ask(post(native(1.0)))).headers["date"] != first


@in_real_time
async def test_what_is_under_way_when_the_server_ends_is_answered_and_told_that_it_does() -> None:
    async with house() as of, served(of, create_server(("127.0.0.1", 0))) as (server, port):
        of.lab.cloud.infer = answer(after=0.4)
        async with connected(port) as busy, connected(port) as idle:
            assert "connection" not in (await busy.ask(post(native(1.0)))).headers
            await idle.ask(post(native(1.0)))
            busy.send(post(native(2.0, "slow")))
            await eventually(lambda: len(of.lab.cloud.calls) == 1)
            server.should_exit = True
            assert await idle.rest() == []
            found = await busy.answer()
            assert (found.score(), found.headers["connection"]) == (2.0, "close")
            assert await busy.rest() == []
