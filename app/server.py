"""Runs the gateway under uvicorn until it is told to stop."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from socket import socket
from typing import Any

import uvicorn

from app.gateway import make_gateway
from app.settings import Settings

log = logging.getLogger(__name__)


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; requests under way get the drain time to end.

    Args:
        settings: Where to listen, and the rest.
        announce: Told the base URL once connections are accepted.

    Raises:
        SystemExit: It could not start; uvicorn's log says why.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It logs every change in the policy file's folder, and would follow itself for ever if the log is kept there.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    config = uvicorn.Config(
        make_gateway(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    # uvicorn shuts down in order on SIGTERM, then raises it again; this lets what runs around it end in order too.
    signal.signal(signal.SIGTERM, _exit)
    server = _AnnouncingServer(config, announce)
    try:
        server.run()
    except KeyboardInterrupt:
        return
    if not server.started:
        raise SystemExit(1)


def _exit(*_: object) -> None:
    raise SystemExit(0)


class _AnnouncingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce(_url(self.servers[0].sockets[0].getsockname()))


def _url(address: Any) -> str:
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
