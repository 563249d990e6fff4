"""A TCP relay in user space that stands for a WAN: it delays, throttles, goes silent, refuses and resets.

`python -m drills.relay` listens, prints its port, and then obeys: each line on its input is an `Order` in JSON, and is
answered with the counts so far. It ends when its input does.

- Bytes of one connection never change their order, whatever the jitter.
- The throttle is on the way up (from the client) and is shared by all connections, as an uplink is. Before it a quarter
  of a second's bytes may queue, as in a router; what is more waits with its sender.
- While it is silent nothing passes. Connections that were there before resume afterwards, as TCP's own retransmission
  would make them. Those that came meanwhile are accepted, because a program cannot keep the kernel from that; what they
  send is forgotten, and they are reset when the silence ends.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec
import uvloop

CHUNK_BYTES = 64 * 1024

QUEUED_CHUNKS = 64
"""Chunks on their way in one direction of a connection; more wait in the sender, as TCP's window would have it."""

UPLINK_QUEUE_S = 0.25
RECEIVE_BYTES = 64 * 1024
"""The kernel's buffer of each connection; it would grow to megabytes, which are half a minute of a thin uplink."""

_LINGER_ZERO = struct.pack("ii", 1, 0)
"""SO_LINGER with time 0: closing sends a reset."""


class Gate(Enum):
    """Whether anything passes."""

    OPEN = "open"
    SILENT = "silent"
    REFUSING = "refusing"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the line is.

    Args:
        rtt_s: Round trip in seconds that the line adds, half of it on each way.
        jitter_s: Largest deviation of each way's delay, in seconds.
        up_bits_per_s: Throughput from site to cloud; None does not limit it.
        gate: Whether anything passes.
    """

    rtt_s: float = 0.0
    jitter_s: float = 0.0
    up_bits_per_s: float | None = None
    gate: Gate = Gate.OPEN


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do: take on new conditions, reset every connection, or, with neither, only count."""

    conditions: Conditions | None = None
    reset: bool = False


class Counts(msgspec.Struct, frozen=True):
    """What was passed on from the client's side: chunks, their bytes, and how many held each marker."""

    chunks: int
    bytes: int
    marked: dict[str, int]


class Uplink:
    """When bytes that share a throttled line have left it; pure arithmetic.

    Bytes queue behind all that were handed over before.
    """

    def backlog_s(self, now: float) -> float:
        """Seconds until what was handed over has left."""
        return max(0.0, self._free_at - now)

    def __init__(self) -> None:
        self._free_at = 0.0

    def leaves_at(self, now: float, size: int, bits_per_s: float | None) -> float:
        """Takes `size` bytes at `now`; returns when the last of them has left."""
        if bits_per_s is None:
            self._free_at = now
        else:
            self._free_at = max(now, self._free_at) + size * 8 / bits_per_s
        return self._free_at


class Relay:
    """Relays connections to one address.

    Args:
        upstream: Host and port to relay to.
        markers: Byte strings to count in what goes up, by name.
        randomness: Gives numbers in [0, 1) for the jitter.
    """

    def __init__(
        self, upstream: tuple[str, int], markers: Mapping[str, bytes], randomness: Callable[[], float]
    ) -> None:
        self.conditions = Conditions()
        self._upstream = upstream
        self._markers = markers
        self._random = randomness
        self._uplink = Uplink()
        self._open = asyncio.Event()
        self._open.set()
        self._chunks = 0
        self._bytes = 0
        self._marked = dict.fromkeys(markers, 0)
        self._links: dict[asyncio.Task[None], bool] = {}
        self._server: asyncio.Server | None = None
        self._address = ("", 0)

    @property
    def counts(self) -> Counts:
        """What went up so far."""
        return Counts(self._chunks, self._bytes, dict(self._marked))

    async def listen(self, host: str, port: int) -> int:
        """Starts to accept connections; returns the port."""
        listener = socket.create_server((host, port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK_BYTES)
        address = listener.getsockname()
        self._address = (address[0], address[1])
        return self._address[1]

    async def change(self, conditions: Conditions) -> None:
        """Takes on new conditions."""
        before, self.conditions = self.conditions.gate, conditions
        if conditions.gate is before:
            return
        if before is Gate.SILENT:
            self.reset(born_in_silence=True)
        if conditions.gate is Gate.OPEN:
            self._open.set()
        else:
            self._open.clear()
        if conditions.gate is Gate.REFUSING:
            self.reset()
            await self._stop_listening()
        elif before is Gate.REFUSING:
            await self.listen(*self._address)

    def reset(self, *, born_in_silence: bool = False) -> None:
        """Resets every connection, or only those that came while the line was silent."""
        for link, in_silence in self._links.items():
            if in_silence or not born_in_silence:
                link.cancel()

    async def close(self) -> None:
        """Stops listening and resets every connection."""
        await self._stop_listening()
        self.reset()
        if self._links:
            await asyncio.wait(self._links)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        in_silence = self.conditions.gate is Gate.SILENT
        self._links[link] = in_silence
        try:
            if in_silence:
                await _forget(reader)
            else:
                await self._relay(reader, writer)
        except (asyncio.CancelledError, OSError, ExceptionGroup):
            _abort(writer)
        finally:
            writer.close()
            del self._links[link]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream, limit=CHUNK_BYTES)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pump(reader, upstream_writer, up=True))
                ways.create_task(self._pump(upstream_reader, writer, up=False))
        except BaseException:
            _abort(upstream_writer)
            raise
        finally:
            upstream_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Reads one way of a connection; what was read is delivered when its time has come."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._deliver(queue, writer, up=up))
            due = 0.0
            while True:
                chunk = await reader.read(CHUNK_BYTES)
                due = max(due, self._arrives_at(len(chunk), up=up))
                await queue.put((due, chunk))
                if not chunk:
                    return
                if up:
                    await self._have_room()

    async def _have_room(self) -> None:
        """Waits until the queue before the uplink has room."""
        backlog_s = self._uplink.backlog_s(asyncio.get_running_loop().time())
        await asyncio.sleep(max(0.0, backlog_s - UPLINK_QUEUE_S))

    def _arrives_at(self, size: int, *, up: bool) -> float:
        now, line = asyncio.get_running_loop().time(), self.conditions
        left = self._uplink.leaves_at(now, size, line.up_bits_per_s) if up else now
        return left + max(0.0, line.rtt_s / 2 + (2 * self._random() - 1) * line.jitter_s)

    async def _deliver(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await self._open.wait()
            if not chunk:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            if up:
                self._count(chunk)
            writer.write(chunk)
            await writer.drain()

    def _count(self, chunk: bytes) -> None:
        self._chunks += 1
        self._bytes += len(chunk)
        for name, marker in self._markers.items():
            if marker in chunk:
                self._marked[name] += 1


async def _forget(reader: asyncio.StreamReader) -> None:
    """Reads on until the other side has enough, and keeps nothing."""
    while await reader.read(CHUNK_BYTES):
        continue


def _abort(writer: asyncio.StreamWriter) -> None:
    """Closes a connection with a reset."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    writer.transport.abort()


def parse_markers(given: list[str]) -> dict[str, bytes]:
    """Markers from `NAME=HEX` on a command line.

    Raises:
        ValueError: One is not of that form.
    """
    return {name: bytes.fromhex(value) for name, _, value in (marker.partition("=") for marker in given)}


def marker_options(markers: Mapping[str, bytes]) -> list[str]:
    """The command line's options for markers."""
    return [f"--marker={name}={value.hex()}" for name, value in markers.items()]


async def _serve(options: argparse.Namespace) -> None:
    host, _, port = options.upstream.rpartition(":")
    relay = Relay((host, int(port)), parse_markers(options.marker), random.Random(options.seed).random)
    host, _, port = options.listen.rpartition(":")
    print(await relay.listen(host, int(port)), flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = msgspec.json.decode(line, type=Order)
        if order.conditions is not None:
            await relay.change(order.conditions)
        if order.reset:
            relay.reset()
        print(msgspec.json.encode(relay.counts).decode(), flush=True)
    await relay.close()


def main() -> None:
    """Relays until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--marker", action="append", default=[], metavar="NAME=HEX")
    parser.add_argument("--seed", type=int, default=1)
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
