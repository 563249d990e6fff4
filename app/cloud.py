"""A real Triton server on this machine, standing in for the cloud: for demonstrations, drills and tests.

`TritonProcess` listens on 127.0.0.1 only. A small keeper process (cloud_keeper.py) stands between it and the
server and sees to it that neither the server nor one of its children is left, however this process ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import msgspec

from app.cloud_install import (
    DEFAULT_ENVIRONMENT,
    DEFAULT_REPOSITORY,
    CloudInstall,
    CloudUnavailable,
    find_install,
)
from app.cloud_keeper import Orders

__all__ = ["CloudPorts", "CloudUnavailable", "TritonProcess"]

HOST = "127.0.0.1"
EXIT_TIMEOUT_S = 2
"""How long Triton lets requests in flight finish when it is told to stop."""

GRACE_S = EXIT_TIMEOUT_S + 3.0
"""Seconds between SIGTERM and SIGKILL."""

CLEAR_UP_S = 1.0
"""Longest that a keeper takes to kill a dead server's children and to remove its shared memory."""

READY_POLL_S = 0.05
LOG_TAIL_LINES = 5


@dataclass(frozen=True, slots=True)
class CloudPorts:
    """TCP ports on 127.0.0.1; 0 = choose a free one."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002


class TritonProcess:
    """One Triton server, from start to stop, and again.

    Used as a context manager it is ready inside and gone after. `start` may be called again after `stop`, or
    after the server was killed from outside; it gets the same ports. Not for use by several threads at once.

    Attributes:
        ports: the ports in use; known from the first `start` on where 0 was asked for.
        log_path: what the server printed; gone after `stop` unless a runtime directory was given.
    """

    def __init__(
        self,
        ports: CloudPorts | None = None,
        *,
        environment: Path = DEFAULT_ENVIRONMENT,
        repository: Path = DEFAULT_REPOSITORY,
        runtime: Path | None = None,
    ) -> None:
        """Say what to start; nothing is looked at or started yet.

        Args:
            ports: where to listen.
            environment: virtual environment with deploy/triton/requirements.lock installed.
            repository: Triton model repository to serve.
            runtime: writable directory for backend, models and log; by default a temporary one that `stop`
                removes.
        """
        self.ports = CloudPorts() if ports is None else ports
        self._environment = environment
        self._repository = repository
        self._given_runtime = runtime
        self._runtime = runtime
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def pid(self) -> int:
        """Process id of tritonserver itself, to be killed or stopped in a drill; 0 before the first start."""
        return self._pid

    @property
    def running(self) -> bool:
        """Whether the server, or what clears up after it, still runs."""
        return self._keeper is not None and self._keeper.poll() is None

    @property
    def log_path(self) -> Path:
        """What the server printed.

        Raises:
            CloudUnavailable: not started yet.
        """
        if self._runtime is None:
            raise CloudUnavailable("there is no log before the server was started: call start() first")
        return self._runtime / "tritonserver.log"

    @property
    def http_url(self) -> str:
        """Base address of the HTTP port, such as `http://127.0.0.1:8000`."""
        return f"http://{HOST}:{self.ports.http}"

    @property
    def grpc_url(self) -> str:
        """Address of the gRPC port as a policy file names it, such as `grpc://127.0.0.1:8001`."""
        return f"grpc://{HOST}:{self.ports.grpc}"

    def start(self) -> None:
        """Start the server and return while it still loads its models.

        Raises:
            CloudUnavailable: something is missing, a port is taken, or it already runs.
        """
        self._finish_last_run()
        install = find_install(self._environment, self._repository)
        self.ports = _free_ports(self.ports)
        if self._runtime is None:
            self._runtime = Path(tempfile.mkdtemp(prefix="hybrid-router-cloud-"))
        self._runtime.mkdir(parents=True, exist_ok=True)
        install.lay_out(self._runtime)
        self.log_path.write_bytes(b"")
        self._spawn(install, self._runtime)

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every model is loaded.

        Args:
            timeout_s: seconds; a Raspberry Pi takes a good many more than a desktop's one.

        Raises:
            CloudUnavailable: the server ended, or was not ready in time. It is stopped then.
        """
        give_up = time.monotonic() + timeout_s
        # A proxy from the environment must not stand between us and our own machine.
        with httpx.Client(base_url=self.http_url, timeout=1.0, trust_env=False) as client:
            while self.running and time.monotonic() < give_up:
                try:
                    if client.get("/v2/health/ready").status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(READY_POLL_S)
        what = f"wasn't ready in {timeout_s:g} s" if self.running else "ended while it started"
        message = f"Triton {what}; the end of its log says why: {self.log_tail()}"
        self.stop()
        raise CloudUnavailable(message)

    def stop(self) -> None:
        """Stop server and children, and remove a temporary runtime directory; harmless when not running."""
        if self._keeper is not None:
            self._keeper.terminate()
            self._wait_for_keeper()
        if self._given_runtime is None and self._runtime is not None:
            shutil.rmtree(self._runtime, ignore_errors=True)
            self._runtime = None

    def __enter__(self) -> Self:
        """Start, and wait until ready."""
        with ExitStack() as on_failure:
            on_failure.callback(self.stop)
            self.start()
            self.wait_ready()
            on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _finish_last_run(self) -> None:
        """Let the keeper of a server that was just killed clear up; a server still alive is an error."""
        if self._keeper is None:
            return
        try:
            self._keeper.wait(CLEAR_UP_S)
        except subprocess.TimeoutExpired:
            raise CloudUnavailable("this Triton already runs: call stop() before start()") from None
        self._keeper = None

    def _wait_for_keeper(self) -> None:
        """Wait for the keeper to end, and do by force what it was too stuck to do."""
        assert self._keeper is not None
        try:
            self._keeper.wait(GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self._keeper.kill()  # the kernel then kills the server, which the keeper's end is tied to
            self._keeper.wait()
        self._keeper = None

    def _spawn(self, install: CloudInstall, runtime: Path) -> None:
        """Start keeper and server, and learn the server's process id."""
        shared_memory = f"hybrid-router-{os.getpid()}-{self.ports.grpc}-"
        orders = Orders(
            owner=os.getpid(),
            command=_command(install, runtime, self.ports, shared_memory),
            log=str(self.log_path),
            grace_s=GRACE_S,
            shared_memory_prefix=shared_memory,
            scratch="" if self._given_runtime else str(runtime),
        )
        environment = os.environ | {
            "LD_LIBRARY_PATH": ":".join(str(directory) for directory in install.library_path),
            "HYBRID_ROUTER_SITE_PACKAGES": str(install.site_packages),
        }
        keeper = Path(__file__).with_name("cloud_keeper.py")
        # A session of its own: Ctrl-C in a terminal reaches us alone, and we then stop the server in order.
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(keeper), msgspec.json.encode(orders).decode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        with self._keeper.stdout as first_line:
            answer = first_line.readline()
        if not answer:
            self.stop()
            raise CloudUnavailable(f"{install.server} couldn't be executed: is the wheel made for this machine?")
        self._pid = int(answer)

    def log_tail(self) -> str:
        """The log's last lines that are warnings or errors, or else its last lines, on one line."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        grave = [line for line in lines if line.startswith(("E", "W"))]
        return " | ".join((grave or lines)[-LOG_TAIL_LINES:])


def _command(install: CloudInstall, runtime: Path, ports: CloudPorts, shared_memory: str) -> list[str]:
    """Triton's command line."""
    options = {
        "model-repository": runtime / "models",
        "backend-directory": runtime / "backends",
        "backend-config": f"python,shm-region-prefix-name={shared_memory}",
        "model-control-mode": "none",
        "http-address": HOST,
        "http-port": ports.http,
        "grpc-address": HOST,
        "grpc-port": ports.grpc,
        "metrics-address": HOST,
        "metrics-port": ports.metrics,
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": EXIT_TIMEOUT_S,
        # A gateway that must notice a dead line in a second sends keepalive often; by default Triton ends
        # such a connection with GOAWAY "too_many_pings". 0 strikes = never.
        "grpc-http2-min-recv-ping-interval-without-data": 500,
        "grpc-http2-max-ping-strikes": 0,
        "log-info": "false",
    }
    # Whether a config lacks something is asked of the model, in a process of its own that imports all it needs: most
    # of the start. Ours lack nothing.
    flags = ["--disable-auto-complete-config"] if install.repository == DEFAULT_REPOSITORY else []
    return [str(install.server), *flags, *(f"--{name}={value}" for name, value in options.items())]


def _free_ports(asked: CloudPorts) -> CloudPorts:
    """The ports with each 0 replaced by a free one; all are held at once meanwhile, so that they differ.

    Raises:
        CloudUnavailable: one that was asked for is taken.
    """
    with ExitStack() as held:
        chosen = []
        for port in astuple(asked):
            listener = held.enter_context(socket.socket())
            # Without this, connections of a server that was just killed would keep its port for a minute.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
                listener.listen()
            except OSError as error:
                raise CloudUnavailable(
                    f"port {port} on {HOST} can't be had ({error.strerror}): stop what uses it or choose another"
                ) from error
            chosen.append(listener.getsockname()[1])
    return CloudPorts(*chosen)
