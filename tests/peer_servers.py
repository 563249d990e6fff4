"""Other servers of the digits edge model: MLServer and KServe, which `make peers` installs, and a hand-written one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "deploy/peers"
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A model server that can be started.

    Args:
        command: Starts it.
        port: Where it then listens for HTTP.
        environment: Further environment variables.
        grpc: Where it listens for gRPC; 0 for nowhere.
    """

    command: Sequence[str]
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    grpc: int = 0

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"


def mlserver() -> Peer:
    """MLServer without parallel workers, which cost more than they bring for a model this small."""
    http, grpc = _free_ports(2)
    environment = {"PYTHONPATH": str(PEERS), "MLSERVER_HTTP_PORT": str(http), "MLSERVER_GRPC_PORT": str(grpc)}
    return Peer((_installed("mlserver", "mlserver"), "start", str(PEERS)), http, environment, grpc)


def kserve() -> Peer:
    """KServe's model server without its log of every request."""
    http, grpc = _free_ports(2)
    options = ("--configure_logging=false", f"--http_port={http}", f"--grpc_port={grpc}")
    return Peer((_installed("kserve", "python"), str(PEERS / "kserve_digits.py"), *options), http, grpc=grpc)


def hand_written(style: Literal["async", "sync"]) -> Peer:
    """A FastAPI application that somebody wrote for this one model, run as the gateway is."""
    (http,) = _free_ports(1)
    return Peer((sys.executable, str(PEERS / "fastapi_digits.py"), style, str(http)), http)


@contextmanager
def serving(peer: Peer) -> Iterator[int]:
    """Starts a peer, waits until it serves the model, and gives its process id; it ends with the block."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            peer.command, cwd=ROOT, env=os.environ | peer.environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait_ready(peer, process)
            yield process.pid
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-3000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(peer: Peer, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_S
    with httpx.Client(base_url=peer.url, timeout=1.0, trust_env=False) as http:
        while True:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{peer.command[0]} did not start")
            try:
                if http.get("/v2/models/digits/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)


def _installed(name: str, program: str) -> str:
    path = ROOT / ".venv-peers" / name / "bin" / program
    if not path.exists():
        raise RuntimeError(f"{name} is not installed: run make peers")
    return str(path)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
