"""How the gRPC channel comes by its connection: attempts, addresses, look-ups, TLS, and servers that are not there."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import backends.grpc_channel
from backends.grpc_channel import GrpcChannel
from backends.grpc_connection import GrpcConnection
from backends.http2 import Kind
from router.errors import BackendLost, BackendTimeout, BackendUnavailable
from tests.contract.http2_stub import certificate
from tests.unit.backends.grpc_server import (
    SERVICE,
    Standin,
    Visit,
    channel_to,
    echo,
    grpc_server,
    under_both_loops,
    until,
)
from tests.unit.backends.grpc_wire import frames


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


async def refusal(channel: GrpcChannel, deadline: float | None = None) -> str:
    """What the channel says of a server that cannot be reached."""
    with pytest.raises(BackendUnavailable) as caught:
        await channel.ask("Infer", b"question", deadline or soon())
    return caught.value.detail


@contextmanager
def full_house(port: int = 0) -> Iterator[int]:
    """A port of 127.0.0.2 that swallows what is sent to it: its queue is full, and nobody lets anyone in."""
    with ExitStack() as open_ones:
        listening = open_ones.enter_context(closing(socket.socket()))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.2", port))
        listening.listen(0)
        for _ in range(4):
            waiting = open_ones.enter_context(closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@asynccontextmanager
async def server_that_says(content: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says that, whatever it hears, and hangs up when the client does: its port, and what it heard."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = len(heard)
        heard.append(b"")
        writer.write(content)
        while received := await reader.read(1 << 16):
            heard[turn] += received
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await asyncio.sleep(0.05)  # until its connections have ended


def infos(port: int, *addresses: str) -> list[tuple[Any, ...]]:
    """What a look-up finds."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


@under_both_loops
async def test_nothing_is_connected_to_before_it_is_needed_and_callers_share_the_attempt() -> None:
    async with grpc_server() as standin, channel_to(standin.url) as channel:
        await asyncio.sleep(0.02)
        assert standin.visits == []
        asked = [asyncio.create_task(channel.ask("Infer", bytes((turn,)), soon())) for turn in range(20)]
        await asyncio.sleep(0)
        asked[0].cancel()
        assert await asyncio.gather(*asked[1:]) == [bytes((turn,)) for turn in range(1, 20)]
        assert len(standin.visits) == 1


@under_both_loops
async def test_a_port_where_nobody_listens_is_unavailable_and_is_tried_anew_each_time() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with channel_to(f"grpc://127.0.0.1:{port}") as channel:
        for _ in range(3):
            said = await refusal(channel)
            assert said.startswith(f"127.0.0.1:{port} cannot be reached: ")
            assert said.endswith(".")
        standin = Standin(echo)
        server = await asyncio.get_running_loop().create_server(lambda: Visit(standin), "127.0.0.1", port)
        assert await channel.ask("Infer", b"question", soon()) == b"question"
        server.close()
    await standin.visits[0].lost


@under_both_loops
async def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.grpc_channel, "CONNECT_S", 0.4)
    async with server_that_says(b"") as (port, heard), channel_to(f"grpc://127.0.0.1:{port}") as channel:
        for turn in range(2):
            with pytest.raises(BackendTimeout):
                await channel.ask("Infer", b"question", soon(0.05))
            assert "it did not answer within 0.4 s" in await refusal(channel)
            assert len(heard) == turn + 1
        assert all(frame.kind != Kind.HEADERS for one in heard for frame in frames(one))
        await until(lambda: not channel._connections)


@under_both_loops
async def test_the_time_that_connecting_takes_is_part_of_the_deadline() -> None:
    async with grpc_server(lambda _, __: None) as standin, channel_to(standin.url) as channel:
        standin.speaks = False
        asked = asyncio.create_task(channel.ask("Infer", b"question", soon(0.8)))
        await until(lambda: standin.visits)
        await asyncio.sleep(0.4)
        standin.speaks = True
        standin.visits[0].flush()
        with pytest.raises(BackendTimeout):
            await asked
        for call in standin.asked:
            assert int(call.headers["grpc-timeout"].removesuffix("m")) <= 401


@pytest.mark.parametrize(
    ("hello", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "does not speak HTTP/2"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "does not speak HTTP/2"),
        (b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\x07\0\0\0\0\0" + bytes(8), "going away"),
    ],
)
@under_both_loops
async def test_what_is_no_server_of_grpc_is_said_to_be_none(hello: bytes, sentence: str) -> None:
    async with server_that_says(hello) as (port, _), channel_to(f"grpc://127.0.0.1:{port}") as channel:
        assert sentence in await refusal(channel)
        await until(lambda: not channel._connections)


@under_both_loops
async def test_an_address_that_swallows_packets_is_passed_by_and_comes_last_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []
    connected_to = GrpcChannel._connected_to

    async def counted(channel: GrpcChannel, address: str) -> GrpcConnection:
        tried.append(address)
        return await connected_to(channel, address)

    async def look_up(_: str, port: int, **__: Any) -> list[tuple[Any, ...]]:
        return infos(port, "127.0.0.2", "127.0.0.1")

    monkeypatch.setattr(GrpcChannel, "_connected_to", counted)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    async with grpc_server() as standin, channel_to(f"grpc://triton.test:{standin.port}") as channel:
        with full_house(standin.port):
            assert await channel.ask("Infer", b"question", soon()) == b"question"
            assert standin.asked[0].headers[":authority"] == f"triton.test:{standin.port}"
            standin.visits[0].transport.close()
            await until(lambda: channel._connection is None)
            assert await channel.ask("Infer", b"question", soon()) == b"question"
            assert tried == ["127.0.0.2", "127.0.0.1", "127.0.0.1"]


@under_both_loops
async def test_an_address_that_refuses_is_passed_by_in_the_same_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with grpc_server() as standin, channel_to(f"grpc://triton.test:{standin.port}") as channel:

        async def look_up(_: str, port: int, **__: Any) -> list[tuple[Any, ...]]:
            return infos(port, "127.0.0.3", "127.0.0.1")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        assert await channel.ask("Infer", b"question", soon()) == b"question"


@under_both_loops
async def test_a_look_up_that_hangs_occupies_one_thread_and_what_it_finds_in_the_end_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends.grpc_channel, "CONNECT_S", 0.05)
    found, looked_up = asyncio.Event(), 0

    async with grpc_server() as standin, channel_to(f"grpc://triton.test:{standin.port}") as channel:

        async def look_up(_: str, port: int, **__: Any) -> list[tuple[Any, ...]]:
            nonlocal looked_up
            looked_up += 1
            await found.wait()
            return infos(port, "127.0.0.1")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        for _ in range(4):
            assert "within 0.05 s" in await refusal(channel)
        assert looked_up == 1
        monkeypatch.setattr(backends.grpc_channel, "CONNECT_S", 20.0)
        asked = asyncio.create_task(channel.ask("Infer", b"question", soon()))
        await asyncio.sleep(0.01)
        found.set()
        assert await asked == b"question"
        assert looked_up == 1


@under_both_loops
async def test_a_name_that_leads_nowhere_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(_: str, __: int, **___: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror(-2, "Name or service not known")

    async with channel_to("grpc://triton.test:8001") as channel:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        assert "could not be resolved: [Errno -2] Name or service not known." in await refusal(channel)
    async with channel_to(f"grpc://{'a' * 70}.test:8001") as channel:
        monkeypatch.undo()
        assert "could not be resolved" in await refusal(channel)


@under_both_loops
async def test_closing_ends_an_attempt_and_whoever_waits_for_it() -> None:
    async with server_that_says(b"") as (port, heard):
        channel = GrpcChannel(f"grpc://127.0.0.1:{port}", SERVICE)
        asked = asyncio.create_task(channel.ask("Infer", b"question", soon()))
        await until(lambda: heard and heard[0])
        await channel.close()
        with pytest.raises(BackendUnavailable, match="closed"):
            await asked


@asynccontextmanager
async def over_tls(folder: Path, *protocols: str) -> AsyncIterator[tuple[Standin, GrpcChannel]]:
    """A server that offers such protocols over TLS, with `cert.pem` in the folder to trust, and a channel to it."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate(folder))
    if protocols:
        tls.set_alpn_protocols(list(protocols))
    async with grpc_server(echo, tls=tls) as standin, channel_to(f"grpcs://localhost:{standin.port}") as channel:
        yield standin, channel


@under_both_loops
async def test_tls_with_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    async with over_tls(tmp_path, "h2") as (standin, channel):
        messages = [b"question", bytes(3 << 20), b""]
        assert await asyncio.gather(*(channel.ask("Infer", one, soon()) for one in messages)) == messages
        assert standin.asked[0].headers[":scheme"] == "https"
        assert len(standin.visits) == 1


@under_both_loops
async def test_a_certificate_that_nobody_vouches_for_is_refused_and_nothing_is_sent(tmp_path: Path) -> None:
    async with over_tls(tmp_path, "h2") as (standin, channel):
        assert "certificate" in await refusal(channel)
        assert standin.asked == []


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
@under_both_loops
async def test_a_server_that_does_not_offer_http_2_is_refused(
    protocols: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    async with over_tls(tmp_path, *protocols) as (standin, channel):
        assert "does not offer HTTP/2" in await refusal(channel)
        assert standin.asked == []


@under_both_loops
async def test_closing_does_not_wait_for_the_goodbye_of_a_server_that_the_network_has_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    monkeypatch.setattr(backends.grpc_channel, "CLOSE_GRACE_S", 0.05)
    async with over_tls(tmp_path, "h2") as (standin, channel):
        await channel.ask("Infer", b"question", soon())
        standin.visits[0].transport.pause_reading()
        asked = asyncio.create_task(channel.ask("Infer", b"question", soon()))
        await asyncio.sleep(0)
        await channel.close()
        with pytest.raises(BackendLost):
            await asked
        assert channel._connections == set()
