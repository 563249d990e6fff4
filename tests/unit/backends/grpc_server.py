"""A gRPC server made of `h2`, which holds a client to the protocol; what it answers is the test's to say."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
import uvloop
from h2.config import H2Configuration

from backends.grpc_channel import GrpcChannel

SERVICE = "test.Service"
Setting = h2.settings.SettingCodes
HEADERS = ((":status", "200"), ("content-type", "application/grpc"))


@dataclass
class Asked:
    """A call as the server sees it: its headers, and of its body what has come so far."""

    stream: int
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False

    @property
    def message(self) -> bytes:
        """The request."""
        assert self.whole
        assert self.body[:1] == b"\0"
        assert int.from_bytes(self.body[1:5], "big") == len(self.body) - 5
        return bytes(self.body[5:])


Script = Callable[["ServerSide", Asked], None]


class ServerSide:
    """The server's end of one connection: bytes go in, bytes come out, and `h2` raises what a client must not do.

    Args:
        script: Answers a call once all of it has come.
        settings: What the server says of itself in the beginning.
        at_head: Called as soon as a call's headers have come.

    Attributes:
        asked: The calls by stream.
        resets: Streams that the client ended, and why.
        goaway: Why the client ended the connection, once it did.
        script: The same.
        consumes: Whether it opens its windows again as it reads.
    """

    def __init__(
        self, script: Script, settings: Mapping[Setting, int] | None = None, at_head: Script | None = None
    ) -> None:
        self.h2 = h2.connection.H2Connection(H2Configuration(client_side=False))
        said = dict((settings or {}).items())
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=said)
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size
        self.h2.initiate_connection()
        self.asked: dict[int, Asked] = {}
        self.resets: dict[int, int] = {}
        self.goaway: int | None = None
        self.consumes = True
        self.script = script
        self._at_head = at_head

    def receive(self, data: bytes) -> None:
        """Takes in what the client sent. Raises what `h2` does if the client may not send it."""
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.StreamReset):
                self.resets[event.stream_id] = int(event.error_code)
        for event in events:
            self._take(event)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers = {name.decode(): value.decode() for name, value in event.headers}
            self.asked[event.stream_id] = Asked(event.stream_id, headers)
            if self._at_head is not None and event.stream_id not in self.resets:
                self._at_head(self, self.asked[event.stream_id])
        elif isinstance(event, h2.events.DataReceived):
            self.asked[event.stream_id].body += event.data
            if self.consumes:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.asked[event.stream_id].whole = True
            if event.stream_id not in self.resets:
                self.script(self, self.asked[event.stream_id])
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code or 0)

    def settings(self, values: Mapping[Setting, int]) -> None:
        """Says something else of itself; `h2` holds the client to it from its acknowledgement on."""
        self.h2.update_settings(dict(values.items()))

    def answer(self, stream: int, message: bytes, pads: tuple[int, ...] = ()) -> None:
        """A whole answer, in frames that are padded in turn so much."""
        self.h2.send_headers(stream, HEADERS)
        self.body(stream, len(message).to_bytes(5, "big") + message, pads)
        self.trailers(stream)

    def body(self, stream: int, content: bytes, pads: tuple[int, ...] = ()) -> None:
        """A part of an answer, in as few frames as it goes."""
        at, turn = 0, 0
        while at < len(content):
            pad = pads[turn % len(pads)] if pads else None
            turn += 1
            size = self.h2.max_outbound_frame_size - (0 if pad is None else pad + 1)
            self.h2.send_data(stream, content[at : at + size], pad_length=pad)
            at += size

    def trailers(self, stream: int, *more: tuple[str, str], status: str = "0") -> None:
        """The end of an answer, with that status."""
        self.h2.send_headers(stream, [("grpc-status", status), *more], end_stream=True)

    def trailers_only(self, stream: int, *more: tuple[str, str], status: str = "13") -> None:
        """An answer that is nothing but a status."""
        self.h2.send_headers(stream, [*HEADERS, ("grpc-status", status), *more], end_stream=True)


def echo(side: ServerSide, asked: Asked) -> None:
    """Answers with the request."""
    side.answer(asked.stream, asked.message)


def silence(_: ServerSide, __: Asked) -> None:
    """Answers nothing."""


def fails(status: str, *more: tuple[str, str]) -> Script:
    """Answers that status, and these headers, in one frame."""

    return lambda side, asked: side.trailers_only(asked.stream, *more, status=status)


class Visit(asyncio.Protocol):
    """A connection to the stand-in."""

    def __init__(self, standin: Standin) -> None:
        self.standin = standin
        self.side = ServerSide(standin.script, standin.settings)
        self.lost = asyncio.get_running_loop().create_future()
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says hello, unless nothing is to be said."""
        self.transport = cast(asyncio.Transport, transport)
        self.standin.visits.append(self)
        if self.standin.speaks:
            self.flush()

    def data_received(self, data: bytes) -> None:
        """Answers as the script says."""
        self.received += data
        try:
            self.side.receive(data)
        except h2.exceptions.ProtocolError as error:
            self.standin.complaints.append(error)
        if self.standin.speaks:
            self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more comes."""
        self.lost.set_result(error)

    def flush(self) -> None:
        """Sends what there is to send."""
        self.transport.write(self.side.h2.data_to_send())


@dataclass
class Standin:
    """A server on loopback.

    Attributes:
        script: What becomes of calls on connections to come.
        settings: What it says of itself.
        speaks: Whether it says anything at all.
        visits: Its connections.
        complaints: What clients did that they must not.
    """

    script: Script
    settings: Mapping[Setting, int] | None = None
    speaks: bool = True
    port: int = 0
    visits: list[Visit] = field(default_factory=list)
    complaints: list[Exception] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"grpc://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[Asked]:
        """All calls."""
        return [asked for visit in self.visits for asked in visit.side.asked.values()]


@asynccontextmanager
async def grpc_server(
    script: Script = echo, settings: Mapping[Setting, int] | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Standin]:
    """Runs one on a free port."""
    standin = Standin(script, settings)
    server = await asyncio.get_running_loop().create_server(lambda: Visit(standin), "127.0.0.1", 0, ssl=tls)
    standin.port = server.sockets[0].getsockname()[1]
    try:
        yield standin
        assert standin.complaints == []
    finally:
        server.close()
        for visit in standin.visits:
            visit.transport.abort()
            await visit.lost


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[GrpcChannel]:
    """A channel, closed afterwards."""
    channel = GrpcChannel(url, SERVICE)
    try:
        yield channel
    finally:
        await channel.close()


async def until(is_so: Callable[[], object]) -> None:
    """Waits until it is so."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 a stand-in's state has no event of its own
            await asyncio.sleep(0.002)


def under_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test under asyncio's loop and under uvloop. It may leave no task, and no complaint of the loop."""

    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        said: list[Any] = []
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: said.append(context))
            runner.run(test(**fixtures))
            assert asyncio.all_tasks(runner.get_loop()) == set()
        assert said == []

    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    of_test = inspect.signature(test).parameters.values()
    new_loop = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    run.__module__ = test.__module__
    run.__signature__ = inspect.Signature([*of_test, new_loop])  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.parametrize("new_loop", loops, ids=["asyncio", "uvloop"])(run)
    return marked
