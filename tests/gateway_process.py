"""A real gateway in a process of its own, as an operator would start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import socket
from typing import Any, Self

import httpx

ROOT = Path(__file__).parent.parent
DEFAULT_POLICY = ROOT / "policies/samples/default.yaml"


def policy_text(cloud_url: str) -> str:
    """The default policy file with the cloud at another address."""
    text = DEFAULT_POLICY.read_text()
    assert "grpc://127.0.0.1:8001" in text
    return text.replace("grpc://127.0.0.1:8001", cloud_url)


class GatewayProcess:
    """`hybrid-router serve` on free ports.

    Args:
        policy: The policy file.
        environment: Further environment variables.
        listener: A listening socket to hand over, instead of a free port.
        within: A command that becomes the gateway in the end, such as `unshare --mount`.

    Attributes:
        url: Its base URL.
        grpc: Where it listens for gRPC, or an empty string.
        http: A client for it.
    """

    def __init__(
        self, policy: Path, environment: Mapping[str, str], listener: socket | None = None, within: Sequence[str] = ()
    ) -> None:
        self.policy = policy
        # Not beside the policy file: what it writes there would wake the very watcher that the tests wait for.
        self._log = tempfile.TemporaryFile("a+")  # noqa: SIM115
        self._state = tempfile.TemporaryDirectory(prefix="hybrid-router-state-")
        where = ["--port", "0"] if listener is None else ["--fd", str(listener.fileno())]
        self.process = subprocess.Popen(
            [*within, sys.executable, "-m", "app", "serve", *where, "--policy", str(policy)],
            pass_fds=[] if listener is None else [listener.fileno()],
            cwd=ROOT,
            env=os.environ
            | {"HYBRID_ROUTER_STATE_DIR": self._state.name, "HYBRID_ROUTER_GRPC_PORT": "0"}
            | dict(environment),
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "listens on" not in line:
            raise RuntimeError(f"the gateway did not start: {line}{self.log()}")
        self.url = line.split("listens on ")[1].split(",")[0]
        self.grpc = line.split("gRPC on ")[1].split(",")[0] if "gRPC on" in line else ""
        headers = {"Authorization": f"Bearer {key}"} if (key := environment.get("HYBRID_ROUTER_API_KEY")) else {}
        self.http = httpx.Client(base_url=self.url, timeout=20.0, trust_env=False, headers=headers)

    def log(self) -> str:
        """What it wrote to standard error so far."""
        self._log.seek(0)
        return self._log.read()

    def infer(self, **body: Any) -> dict[str, Any]:
        """POSTs to /infer; the answer must be a 200."""
        response = self.http.post("/infer", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels; 0 where there are none."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self.http.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def wait_until(self, condition: Any, timeout_s: float = 10.0) -> None:
        """Waits for `condition(self)` to hold."""
        give_up = time.monotonic() + timeout_s
        while not condition(self):
            assert time.monotonic() < give_up, f"it did not come true within {timeout_s} s\n{self.log()}"
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.terminate()
        self.process.send_signal(signal.SIGINT)  # cuts short the notice that SIGTERM gives to balancers: half a second
        self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        self._state.cleanup()
