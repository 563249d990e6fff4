"""The servers that the benchmark compares, each with its own settings: `python -m tests.perf.nothing NAME`.

They are the same but for the gateway's HTTP protocol, which is part of what is measured.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.gateway import Gateway, make_gateway
from app.http_protocol import http_protocol
from app.lifecycle import Lifecycle
from app.settings import Settings


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answers any request with `{}`."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def fastapi() -> FastAPI:
    """One route that answers `{}`."""
    app = FastAPI()

    @app.get("/")
    async def nothing() -> dict[str, str]:
        return {}

    return app


def gateway() -> Gateway:
    """The whole gateway, with a state folder of its own."""
    settings = Settings(grpc_port=None, state_dir=Path(tempfile.mkdtemp(prefix="hybrid-router-")))
    return make_gateway(settings, Lifecycle())


class AnnouncingServer(uvicorn.Server):
    """Prints its URL once it accepts connections."""

    async def startup(self, sockets: Any = None) -> None:
        """Starts, then prints."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"http://{host}:{port}", flush=True)


def main(name: str) -> None:
    """Serves one of them until SIGTERM."""
    app: Any = bare
    http: Any = "httptools"
    if name == "fastapi":
        app = fastapi()
    elif name == "gateway":
        whole = gateway()
        app, http = whole.http, http_protocol(whole.fast_path)
    lifespan: Any = "off" if name == "bare" else "on"
    config = uvicorn.Config(
        app,
        port=0,
        loop="uvloop",
        http=http,
        ws="none",
        lifespan=lifespan,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
    )
    AnnouncingServer(config).run()


if __name__ == "__main__":
    main(sys.argv[1])
