"""Other servers of the digits edge model: a hand-written one, and what `make peers` and `make slow-peers` install."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

from tests.integration.scenario import alive, children

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
        ready: What answers with 200 once it serves the model.
    """

    command: Sequence[str]
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    grpc: int = 0
    ready: str = "/v2/models/digits/ready"

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


def litserve() -> Peer:
    """LitServe, which knows the Open Inference Protocol as little as the two below."""
    (http,) = _free_ports(1)
    program = _installed("litserve", "python", "slow-peers")
    return Peer((program, str(PEERS / "litserve_digits.py"), str(http)), http, ready="/health")


def bentoml() -> Peer:
    """BentoML without its traces, which take a fifth of its CPU time even where nobody gets them."""
    (http,) = _free_ports(1)
    program = _installed("bentoml", "bentoml", "slow-peers")
    service = ("serve", "bentoml_digits:Digits", "--working-dir", str(PEERS))
    environment = {"BENTOML_DO_NOT_TRACK": "true", "OTEL_SDK_DISABLED": "true"}
    return Peer((program, *service, "--host", "127.0.0.1", "--port", str(http)), http, environment, ready="/readyz")


def rayserve() -> Peer:
    """Ray Serve; what it listens on besides has ports of its own, so as to be in nobody's way."""
    http, *others = _free_ports(4)
    names = ("HAPROXY_STATS_PORT", "HAPROXY_METRICS_PORT", "FALLBACK_PROXY_HTTP_PORT")
    environment = {f"RAY_SERVE_{name}": str(port) for name, port in zip(names, others, strict=True)}
    program = _installed("rayserve", "python", "slow-peers")
    command = (program, str(PEERS / "rayserve_digits.py"), str(http))
    return Peer(command, http, environment | {"PYTHONPATH": str(PEERS)}, ready="/-/healthz")


def hand_written(style: Literal["async", "sync"]) -> Peer:
    """A FastAPI application that somebody wrote for this one model, run as the gateway is."""
    (http,) = _free_ports(1)
    return Peer((sys.executable, str(PEERS / "fastapi_digits.py"), style, str(http)), http)


@contextmanager
def serving(peer: Peer) -> Iterator[int]:
    """Starts a peer, waits until it serves the model, and gives its process id; it ends with the block.

    All that it writes goes into a folder that is removed. Processes of its own end too, which not every peer sees to
    (LitServe's outlive the one that started them): its children, and whatever has that folder in its environment.
    """
    with tempfile.TemporaryDirectory(prefix="peer-") as folder, tempfile.TemporaryFile("w+") as log:
        own = {"HOME": folder, "TMPDIR": folder, "ORT_DISABLE_TELEMETRY": "1"}
        environment = os.environ | peer.environment | own
        process = subprocess.Popen(peer.command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_ready(peer, process)
            yield process.pid
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-3000:])
            raise
        finally:
            started = children(process.pid)
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _end_all(started, f"TMPDIR={folder}".encode())


def _end_all(pids: Sequence[int], mark: bytes) -> None:
    """Ends these processes and those that have this in their environment; returns when none is left."""
    while True:
        marked = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _has(entry, mark)]
        left = alive([*pids, *marked])
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _has(entry: Path, mark: bytes) -> bool:
    try:
        return mark in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _wait_ready(peer: Peer, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_S
    with httpx.Client(base_url=peer.url, timeout=1.0, trust_env=False) as http:
        while True:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{peer.command[0]} did not start")
            try:
                if http.get(peer.ready).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)


def _installed(name: str, program: str, target: str = "peers") -> str:
    path = ROOT / ".venv-peers" / name / "bin" / program
    if not path.exists():
        raise RuntimeError(f"{name} is not installed: run make {target}")
    return str(path)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
