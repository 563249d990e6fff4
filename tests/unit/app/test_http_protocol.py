"""An answer goes out in one piece, in order, and whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from app.http_protocol import LONGEST_HELD_S, MOST_HELD, JoinedWrites, Outbox


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
        self._outbox = Outbox(lambda: self.now)

    def connection(self) -> tuple[Recorded, JoinedWrites]:
        transport = Recorded()
        return transport, JoinedWrites(transport, asyncio.get_running_loop(), self._outbox)


def joined() -> tuple[Recorded, JoinedWrites]:
    return Server().connection()


async def test_what_is_written_in_one_turn_goes_out_in_one_piece() -> None:
    transport, writes = joined()
    writes.write(b"head")
    writes.write(b"body")
    assert transport.said == []
    await asyncio.sleep(0)
    assert transport.said == [[b"head", b"body"]]


async def test_each_turn_sends_what_was_written_in_it() -> None:
    transport, writes = joined()
    for part in (b"first", b"second"):
        writes.write(part)
        await asyncio.sleep(0)
    assert transport.said == [[b"first"], [b"second"]]


async def test_every_connection_gets_its_own() -> None:
    server = Server()
    pairs = [server.connection() for _ in range(3)]
    for number, (_, writes) in enumerate(pairs):
        writes.write(b"%d" % number)
    await asyncio.sleep(0)
    assert [transport.said for transport, _ in pairs] == [[[b"0"]], [[b"1"]], [[b"2"]]]


async def test_nobody_waits_for_a_turn_that_takes_long() -> None:
    server = Server()
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
    transport, writes = joined()
    parts = [b"%d" % number for number in range(7)]
    for part in parts:
        writes.write(part)
    await asyncio.sleep(0)
    assert [part for said in transport.said for part in said] == parts


async def test_what_is_large_does_not_wait() -> None:
    transport, writes = joined()
    writes.write(b"x" * (MOST_HELD + 1))
    assert transport.said == [[b"x" * (MOST_HELD + 1)]]


async def test_what_was_written_is_sent_before_the_connection_closes() -> None:
    transport, writes = joined()
    writes.write(b"answer")
    writes.close()
    await asyncio.sleep(0)
    assert transport.said == [[b"answer"], "close"]


async def test_nothing_is_sent_on_a_connection_that_closed_meanwhile() -> None:
    transport, writes = joined()
    writes.write(b"answer")
    transport.close()
    await asyncio.sleep(0)
    assert transport.said == ["close"]


async def test_whatever_else_is_asked_of_it_the_connection_does() -> None:
    transport, writes = joined()
    writes.pause_reading()
    assert not transport.reading
    assert writes.get_extra_info("peername") == ("127.0.0.1", 1)
