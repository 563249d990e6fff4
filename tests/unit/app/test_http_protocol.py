"""An answer goes out in one piece, in order, and whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from app.http_protocol import MOST_PENDING, JoinedWrites


class Recorded(asyncio.Transport):
    """Remembers what it was told to do."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.said: list[list[bytes] | str] = []
        self.reading = True

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.said.append([bytes(data) for data in list_of_data])

    def close(self) -> None:
        self.said.append("close")

    def is_closing(self) -> bool:
        return "close" in self.said

    def pause_reading(self) -> None:
        self.reading = False


def joined() -> tuple[Recorded, JoinedWrites]:
    transport = Recorded()
    return transport, JoinedWrites(transport, asyncio.get_running_loop())


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
    await asyncio.sleep(0)
    assert transport.said == [[b"first"], [b"second"]]


async def test_what_is_large_does_not_wait_for_the_end_of_the_turn() -> None:
    transport, writes = joined()
    writes.write(b"head")
    writes.write(b"x" * MOST_PENDING)
    assert transport.said == [[b"head", b"x" * MOST_PENDING]]
    writes.write(b"tail")
    await asyncio.sleep(0)
    assert transport.said[1:] == [[b"tail"]]


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
