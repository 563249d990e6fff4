"""The gateway under drill: a process like any operator's, with files of its own that may be spoilt."""

from __future__ import annotations

import http
import http.client
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import msgspec

from drills.child import ROOT, Child, python
from drills.line import LOOPBACK, Line

POLICY = Path(__file__).with_name("policy.yaml")
SLOW_MODEL = Path(__file__).with_name("slow-edge.onnx")
MODELS = ROOT / "deploy/models"
CLOUD_IN_POLICY = "grpc://cloud.test:8001"
START_S = 20.0
ASK_TIMEOUT_S = 2.0
BACKLOG = 2048

SMALL_DISK = "256k"
"""Of the disk that is filled: holds the policy file and the gateway's state, and is soon full."""


class Gateway:
    """`hybrid-router serve` at the site.

    Its listening socket is the drill's and outlives it, as with systemd's socket activation.

    Args:
        line: Where the site is.
        folder: For its files; made here.
        small_disk: Keep policy and state on a small file system of the gateway's own, which only it sees. Needs root.

    Attributes:
        policy: Its policy file.
        model: The file of the model that it falls back to.
        url: Its address at the site.
    """

    def __init__(self, line: Line, folder: Path, *, small_disk: bool = False) -> None:
        self._line = line
        self._log = folder / "gateway.log"
        self._models = folder / "models"
        self._files = folder / "files"
        self._small_disk = small_disk
        self._child: Child | None = None
        self._files.mkdir(parents=True)
        self._files.joinpath("state").mkdir()
        shutil.copytree(MODELS, self._models, ignore=lambda _, names: [name for name in names if "-edge" not in name])
        shutil.copy2(SLOW_MODEL, self._models)
        self._policy = self._files / "policy.yaml"
        self._policy.write_text(POLICY.read_text(encoding="utf-8").replace(CLOUD_IN_POLICY, line.cloud_url))
        self.model = self._models / "digits-edge.onnx"
        self._listener = line.site_socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((LOOPBACK, 0))
        self._listener.listen(BACKLOG)
        self._port = self._listener.getsockname()[1]
        self.url = f"http://{LOOPBACK}:{self._port}"

    @property
    def policy(self) -> Path:
        """Its policy file, where this process can write it."""
        return self._seen_from_here(self._policy)

    @property
    def files(self) -> Path:
        """The folder of its policy file and state, where this process can write it."""
        return self._seen_from_here(self._files)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None, "start() comes first"
        return self._child.pid

    def start(self) -> None:
        """Starts the process; `wait_started` says when it accepts connections."""
        state = self._files / "state"
        serve = python("app", "serve", "--fd", str(self._listener.fileno()), "--policy", str(self._policy))
        command = [*serve, "--models-dir", str(self._models), "--grpc-port", "off"]
        if self._small_disk:
            command = ["sh", "-c", _ON_SMALL_DISK, str(self._files), SMALL_DISK, *command]
        self._child = Child(
            self._line.at_site(command),
            self._log,
            {"HYBRID_ROUTER_STATE_DIR": str(state)},
            [self._listener.fileno()],
        )

    def wait_started(self) -> None:
        """Waits until it says that it listens.

        Raises:
            ChildFailed: It does not.
        """
        assert self._child is not None, "start() comes first"
        self._child.line(START_S)

    def kill(self) -> None:
        """SIGKILL, and waits for the kernel to clear it away."""
        assert self._child is not None, "start() comes first"
        self._child.signal(signal.SIGKILL)
        self._child.stop()

    def get(self, path: str) -> tuple[int, bytes]:
        """GETs a path over a connection of its own.

        Raises:
            OSError: No answer in time.
        """
        connection = http.client.HTTPConnection(LOOPBACK, self._port)
        connection.sock = self._line.site_socket()
        connection.sock.settimeout(ASK_TIMEOUT_S)
        try:
            connection.sock.connect((LOOPBACK, self._port))
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"no answer to GET {path}: {error!r}") from error
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """What `/status` says.

        Raises:
            OSError: No answer.
        """
        _, body = self.get("/status")
        status: dict[str, Any] = msgspec.json.decode(body)
        return status

    def metric(self, name: str) -> float:
        """A metric without labels, as `/metrics` has it.

        Raises:
            OSError: No answer.
            LookupError: There is no such metric.
        """
        _, body = self.get("/metrics")
        for line in body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise LookupError(name)

    def is_up(self, model: str, backend: str) -> bool:
        """Whether it would send requests there; False where it does not answer."""
        try:
            targets = self.status()["models"][model]["targets"]
        except OSError:
            return False
        return any(target["available"] for target in targets if target["backend"] == backend)

    def is_ready(self) -> bool:
        """Whether `/readyz` says so; False where it does not answer."""
        try:
            status, _ = self.get("/readyz")
        except OSError:
            return False
        return status == http.HTTPStatus.OK

    def policy_in_force(self) -> str:
        """The digest of the policy file in force.

        Raises:
            OSError: No answer.
        """
        _, body = self.get("/policy")
        return str(msgspec.json.decode(body)["in_force"]["sha256"])

    def compute_s(self, model: str, backend: str) -> float:
        """Seconds that a call computes for, the median, as `/status` predicts it.

        Raises:
            OSError: No answer.
            LookupError: It has no prediction for that.
        """
        targets = self.status()["models"][model]["targets"]
        (target,) = (target for target in targets if target["backend"] == backend)
        if target["latency"] is None:
            raise LookupError(f"no latency of {model} on {backend}")
        return float(target["latency"]["compute_ms"]["p50"]) / 1000

    def spent_usd(self) -> float:
        """What its budget for the cloud has been charged with this month.

        Raises:
            OSError: No answer.
        """
        return float(self.status()["budgets"]["cloud"]["spent_month_usd"])

    def ledger_problems(self) -> list[str]:
        """Why its budgets cannot be written down; empty where they can.

        Raises:
            OSError: No answer.
        """
        return list(self.status()["ledger_problems"])

    def close(self) -> None:
        """Ends it, and lets go of its socket."""
        if self._child is not None:
            self._child.stop()
        self._listener.close()

    def _seen_from_here(self, path: Path) -> Path:
        """A path of the gateway's own mount namespace, as this process reaches it."""
        return Path(f"/proc/{self.pid}/root{path}") if self._small_disk else path


_ON_SMALL_DISK = """
set -e
cp "$0/policy.yaml" "$0.policy"
mount -t tmpfs -o size="$1" drill "$0"
mkdir "$0/state"
mv "$0.policy" "$0/policy.yaml"
shift
exec "$@"
"""
"""Mounted in the mount namespace that `ip netns exec` makes, it is gone with the process."""
