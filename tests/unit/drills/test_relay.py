"""The relay, on real sockets: what a program behind a bad line would see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills.relay import Conditions, Gate, Relay, Uplink, marker_options, parse_markers

HOST = "127.0.0.1"
MARKER = bytes(range(32))
SHORT_S = 0.04

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Relay, int]]:
    """A relay before a server that sends back what it gets; with the relay's port."""
    async with await asyncio.start_server(_echo, HOST, 0) as server:
        relay = Relay((HOST, server.sockets[0].getsockname()[1]), {"primary": MARKER}, lambda: 0.5)
        port = await relay.listen(HOST, 0)
        try:
            yield relay, port
        finally:
            await relay.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection to the relay."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(connection: Connection, content: bytes) -> bytes:
    """Sends, and reads as much back."""
    reader, writer = connection
    writer.write(content)
    return await asyncio.wait_for(reader.readexactly(len(content)), 5)


async def hears_nothing(connection: Connection) -> bool:
    """Whether nothing comes for a while."""
    try:
        await asyncio.wait_for(connection[0].read(1), SHORT_S)
    except TimeoutError:
        return True
    return False


async def test_an_open_line_passes_everything_on_and_counts_what_goes_up() -> None:
    content = b"." * 100 + MARKER
    async with relayed() as (relay, port), connected(port) as connection:
        assert await exchange(connection, content) == content
        counts = relay.counts
    assert counts.bytes == len(content)
    assert counts.marked == {"primary": 1}


async def test_the_end_of_one_way_is_passed_on_and_the_other_goes_on() -> None:
    async with relayed() as (_, port), connected(port) as (reader, writer):
        writer.write(b"last words")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"last words"


async def test_a_delay_is_added_to_every_round_trip() -> None:
    async with relayed() as (relay, port), connected(port) as connection:
        await relay.change(Conditions(rtt_s=SHORT_S))
        began = asyncio.get_running_loop().time()
        await exchange(connection, b"ping")
        assert asyncio.get_running_loop().time() - began >= SHORT_S


async def test_jitter_never_changes_the_order_of_bytes() -> None:
    throws = iter([0.99, 0.0] * 1000)
    async with await asyncio.start_server(_echo, HOST, 0) as server:
        relay = Relay((HOST, server.sockets[0].getsockname()[1]), {}, lambda: next(throws))
        port = await relay.listen(HOST, 0)
        await relay.change(Conditions(rtt_s=0.01, jitter_s=0.005))
        async with connected(port) as (reader, writer):
            sent = b""
            for number in range(30):
                part = b"%04d" % number
                writer.write(part)
                sent += part
                await asyncio.sleep(0)
            assert await asyncio.wait_for(reader.readexactly(len(sent)), 5) == sent
        await relay.close()


async def test_what_was_sent_into_silence_arrives_after_it() -> None:
    async with relayed() as (relay, port), connected(port) as connection:
        await exchange(connection, b"before")
        await relay.change(Conditions(gate=Gate.SILENT))
        connection[1].write(b"during")
        assert await hears_nothing(connection)
        await relay.change(Conditions())
        assert await asyncio.wait_for(connection[0].readexactly(6), 5) == b"during"


async def test_a_connection_made_in_silence_gets_nothing_and_is_reset_afterwards() -> None:
    async with relayed() as (relay, port):
        await relay.change(Conditions(gate=Gate.SILENT))
        async with connected(port) as connection:
            connection[1].write(MARKER)
            assert await hears_nothing(connection)
            await relay.change(Conditions())
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(connection[0].readexactly(1), 5)
        assert relay.counts.bytes == 0


async def test_refusing_resets_what_is_there_and_refuses_what_comes_until_it_accepts_again() -> None:
    async with relayed() as (relay, port), connected(port) as connection:
        await exchange(connection, b"before")
        await relay.change(Conditions(gate=Gate.REFUSING))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(connection[0].readexactly(1), 5)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        await relay.change(Conditions())
        async with connected(port) as later:
            assert await exchange(later, b"after") == b"after"


async def test_a_client_is_reset_where_nobody_listens_behind_the_relay() -> None:
    async with await asyncio.start_server(_echo, HOST, 0) as server:
        upstream = server.sockets[0].getsockname()[1]
    relay = Relay((HOST, upstream), {}, lambda: 0.5)
    port = await relay.listen(HOST, 0)
    async with connected(port) as (reader, _):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
    await relay.close()


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 100_000)), min_size=1, max_size=20),
    st.floats(1e3, 1e9),
)
def test_a_throttled_uplink_never_carries_more_than_its_rate(
    handed_over: list[tuple[float, int]], bits_per_s: float
) -> None:
    uplink = Uplink()
    sent = sorted(handed_over)
    left = [uplink.leaves_at(now, size, bits_per_s) for now, size in sent]
    for (now, size), at in zip(sent, left, strict=True):
        assert at >= now + size * 8 / bits_per_s - 1e-9
    for (before, at), (_, size) in zip(pairwise(left), sent[1:], strict=True):
        assert at - before >= size * 8 / bits_per_s - 1e-9


@given(st.floats(0, 1e6), st.integers(1, 100_000), st.floats(1e3, 1e9))
def test_what_was_handed_over_is_backlog_until_it_has_left(now: float, size: int, bits_per_s: float) -> None:
    uplink = Uplink()
    left = uplink.leaves_at(now, size, bits_per_s)
    assert uplink.backlog_s(now) == left - now
    assert uplink.backlog_s(left) == 0.0


@given(st.floats(0, 1e6), st.integers(1, 100_000))
def test_an_unlimited_uplink_holds_nothing_back(now: float, size: int) -> None:
    assert Uplink().leaves_at(now, size, None) == now


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(min_size=1, max_size=64), max_size=4))
def test_markers_survive_the_command_line(markers: dict[str, bytes]) -> None:
    options = [option.removeprefix("--marker=") for option in marker_options(markers)]
    assert parse_markers(options) == markers
