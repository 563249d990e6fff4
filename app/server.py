"""Runs the gateway under uvicorn until it is told to stop."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from socket import SO_ACCEPTCONN, SOL_SOCKET, socket
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn

from app.fast_path import FastPath
from app.front import ASGIApp
from app.gateway import make_gateway
from app.http_protocol import http_protocol
from app.lifecycle import Lifecycle
from app.rpc.port import PortTaken
from app.settings import NEEDS_KEY, Settings, is_loopback

if TYPE_CHECKING:
    from app.rpc.server import RpcServer

log = logging.getLogger(__name__)


class Doors(NamedTuple):
    """Where the gateway listens: the base URL, and the address for gRPC, if it is on."""

    http: str
    grpc: str | None

    def __str__(self) -> str:
        return self.http if self.grpc is None else f"{self.http}, gRPC on {self.grpc}"


Announce = Callable[[Doors], None]


def serve(settings: Settings, announce: Announce) -> None:
    """Serves until SIGINT or SIGTERM; requests under way get the drain time to end.

    Args:
        settings: Where to listen, and the rest.
        announce: Told where, once connections are accepted.

    Raises:
        ListenRefused: The descriptor that it should listen on is none, or is open to others and there is no key; or
            the port for gRPC is taken.
        SystemExit: It could not start; uvicorn's log says why.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It logs every change in the policy file's folder, and would follow itself for ever if the log is kept there.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    listeners = None if settings.fd is None else [_inherited(settings)]
    lifecycle = Lifecycle()
    gateway = make_gateway(settings, lifecycle)
    config = uvicorn_config(gateway.http, gateway.fast_path, settings)
    # uvicorn shuts down in order on SIGTERM, then raises it again; this lets what runs around it end in order too.
    signal.signal(signal.SIGTERM, _exit)
    server = _Server(config, gateway.rpc, announce, lifecycle, settings.drain_notice_s)
    try:
        server.run(listeners)
    except PortTaken as taken:
        raise ListenRefused(str(taken)) from None
    except KeyboardInterrupt:
        return
    if not server.started:
        raise SystemExit(1)


def uvicorn_config(http: ASGIApp, fast_path: FastPath, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to serve the gateway's HTTP front."""
    return uvicorn.Config(
        http,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=http_protocol(fast_path),
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )


class ListenRefused(Exception):
    """The socket that was handed over must not, or cannot, be listened on; the message says why."""


def _inherited(settings: Settings) -> socket:
    """The listening socket that whoever started this process holds, so that connections outlive a restart."""
    assert settings.fd is not None
    try:
        listener = socket(fileno=settings.fd)
        host = str(listener.getsockname()[0])
        if not listener.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):
            raise ListenRefused(f"descriptor {settings.fd} is a socket that does not listen")
    except (OSError, IndexError) as error:
        raise ListenRefused(f"descriptor {settings.fd} is not a listening TCP socket: {error}") from None
    if settings.api_key is None and not is_loopback(host):
        raise ListenRefused(f"descriptor {settings.fd} listens on {host}, which {NEEDS_KEY}")
    return listener


def _exit(*_: object) -> None:
    raise SystemExit(0)


class _Server(uvicorn.Server):
    """Says where it listens; and on SIGTERM says that it is not ready, for a while, before it closes the door."""

    def __init__(
        self,
        config: uvicorn.Config,
        rpc: RpcServer | None,
        announce: Announce,
        lifecycle: Lifecycle,
        notice_s: float,
    ) -> None:
        super().__init__(config)
        self._rpc = rpc
        self._announce = announce
        self._lifecycle = lifecycle
        self._notice_s = notice_s
        self._close_at = math.inf

    async def startup(self, sockets: list[socket] | None = None) -> None:
        if self._rpc is not None:
            self._rpc.bind()
        await super().startup(sockets)
        if self.started:
            if self._rpc is not None:
                await self._rpc.start()
            url = _url(self.servers[0].sockets[0].getsockname())
            self._announce(Doors(url, None if self._rpc is None else self._rpc.address))

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        if self._rpc is not None:
            self._rpc.begin_stop()  # both doors close at once; the lifespan waits until nobody is left inside
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and not self._lifecycle.draining:
            self._lifecycle.draining = True
            self._captured_signals.append(sig)
            self._close_at = time.monotonic() + self._notice_s
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or time.monotonic() >= self._close_at


def _url(address: Any) -> str:
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
