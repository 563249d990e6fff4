"""An answer goes out in one piece, in order, and whole."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from uvicorn.server import ServerState

from app.http_protocol import LONGEST_HELD_S, MOST_HELD, JoinedWrites, Outbox
from app.server import uvicorn_config
from app.settings import Settings


class Recorded(asyncio.Transport):
    """Remembers what it was told to do."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.said: list[list[bytes] | str] = []
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said.append([bytes(data)])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.said.append([bytes(data) for data in list_of_data])

    def close(self) -> None:
        self.said.append("close")

    def is_closing(self) -> bool:
        return "close" in self.said

    def pause_reading(self) -> None:
        self.reading = False


class Server:
    """Connections of one server, whose clock stands still unless it is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.outbox = Outbox(lambda: self.now)

    def connection(self) -> tuple[Recorded, JoinedWrites]:
        transport = Recorded()
        return transport, JoinedWrites(transport, asyncio.get_running_loop(), self.outbox)

    async def busy(self) -> None:
        """A turn in which two answers are given."""
        for _ in range(2):
            _, writes = self.connection()
            writes.write(b"head")
            writes.write(b"body")
        await asyncio.sleep(0)


async def busy_server() -> Server:
    server = Server()
    await server.busy()
    return server


async def test_a_lone_answer_is_not_held() -> None:
    server = Server()
    transport, writes = server.connection()
    for _ in range(3):
        writes.write(b"head")
        writes.write(b"body")
        await asyncio.sleep(0)
    assert transport.said == [[b"head"], [b"body"]] * 3


async def test_after_a_turn_of_several_answers_each_goes_out_in_one_piece() -> None:
    server = await busy_server()
    pairs = [server.connection() for _ in range(3)]
    for number, (_, writes) in enumerate(pairs):
        writes.write(b"head")
        writes.write(b"%d" % number)
    assert [transport.said for transport, _ in pairs] == [[], [], []]
    await asyncio.sleep(0)
    assert [transport.said for transport, _ in pairs] == [[[b"head", b"%d" % number]] for number in range(3)]


async def test_after_a_turn_of_one_answer_the_next_is_not_held_any_more() -> None:
    server = await busy_server()
    transport, writes = server.connection()
    for _ in range(2):
        writes.write(b"head")
        writes.write(b"body")
        await asyncio.sleep(0)
    assert transport.said == [[b"head", b"body"], [b"head"], [b"body"]]


async def test_a_body_that_comes_in_a_busier_turn_than_its_head_follows_it() -> None:
    server = Server()
    transport, writes = server.connection()
    writes.write(b"head")
    await server.busy()
    writes.write(b"body")
    writes.write(b"tail")
    await asyncio.sleep(0)
    assert transport.said == [[b"head"], [b"body", b"tail"]]


async def test_nobody_waits_for_a_turn_that_takes_long() -> None:
    server = await busy_server()
    (first, writes_first), (second, writes_second), (third, writes_third) = (server.connection() for _ in range(3))
    writes_first.write(b"first")
    server.now = LONGEST_HELD_S / 2
    writes_second.write(b"second")
    assert (first.said, second.said) == ([], [])
    server.now = LONGEST_HELD_S * 1.1
    writes_third.write(b"third")
    assert (first.said, second.said, third.said) == ([[b"first"]], [[b"second"]], [])
    server.now = LONGEST_HELD_S * 2
    writes_first.write(b"again")
    assert third.said == []
    await asyncio.sleep(0)
    assert (third.said, first.said) == ([[b"third"]], [[b"first"], [b"again"]])


async def test_whatever_the_number_of_writes_all_of_them_go_out_in_order() -> None:
    server = Server()
    transport, writes = server.connection()
    parts = [b"%d" % number for number in range(9)]
    for number, part in enumerate(parts):
        writes.write(part)
        if number % 4 == 3:
            await server.busy()
    await asyncio.sleep(0)
    assert [part for said in transport.said for part in said] == parts


async def test_what_is_large_does_not_wait() -> None:
    transport, writes = (await busy_server()).connection()
    writes.write(b"head")
    writes.write(b"x" * MOST_HELD)
    assert transport.said == [[b"head", b"x" * MOST_HELD]]
    writes.write(b"tail")
    await asyncio.sleep(0)
    assert transport.said[1:] == [[b"tail"]]


async def test_what_was_written_is_sent_before_the_connection_closes() -> None:
    transport, writes = (await busy_server()).connection()
    writes.write(b"answer")
    writes.close()
    await asyncio.sleep(0)
    assert transport.said == [[b"answer"], "close"]


async def test_nothing_is_sent_on_a_connection_that_closed_meanwhile() -> None:
    transport, writes = (await busy_server()).connection()
    writes.write(b"answer")
    transport.close()
    await asyncio.sleep(0)
    assert transport.said == ["close"]


async def test_whatever_else_is_asked_of_it_the_connection_does() -> None:
    transport, writes = Server().connection()
    writes.pause_reading()
    assert not transport.reading
    assert writes.get_extra_info("peername") == ("127.0.0.1", 1)


async def test_a_connection_is_not_kept_beyond_its_turn() -> None:
    server = await busy_server()
    transport, writes = server.connection()
    writes.write(b"answer")
    await asyncio.sleep(0)
    gone = weakref.ref(transport)
    del transport, writes
    assert gone() is None


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers any request with its path."""
    body = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def test_the_connections_of_the_gateway_share_an_outbox_and_each_gets_its_own_answers(tmp_path: Path) -> None:
    config = uvicorn_config(app, Settings(state_dir=tmp_path))
    config.load()
    state = ServerState()
    protocols: list[Any] = []

    def new_protocol() -> Any:
        protocols.append(config.http_protocol_class(config=config, server_state=state, app_state={}))  # type: ignore[call-arg]
        return protocols[-1]

    server = await asyncio.get_running_loop().create_server(new_protocol, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        for turn in range(5):
            for number, (_, writer) in enumerate(clients):
                writer.write(b"GET /%d-%d HTTP/1.1\r\nhost: x\r\n\r\n" % (turn, number))
            for number, (reader, _) in enumerate(clients):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert await reader.readexactly(4) == b"/%d-%d" % (turn, number)
        assert len({id(protocol.transport._outbox) for protocol in protocols}) == 1
        for _, writer in clients:
            writer.close()
            await writer.wait_closed()
        for protocol in protocols:
            protocol.transport.close()
