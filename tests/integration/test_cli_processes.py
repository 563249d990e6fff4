"""`hybrid-router cloud` and `hybrid-router demo`: they start, they work, and nothing is left of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cloud import CloudPorts, TritonProcess
from tests.gateway_process import DEFAULT_POLICY, ROOT, policy_text
from tests.integration.scenario import alive, children, eventually

SIGNALS = pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
FREE_PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
STOP_S = 10
"""How long everything may take to stop."""


class Command:
    """A command in a process group of its own, as a terminal starts it.

    Attributes:
        said: The lines that it has printed so far.
        started: It and every process that it has started.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self.started: list[int] = []
        self.listener = threading.Thread(target=self._listen)

    def wait_for(self, words: str) -> str:
        """Waits for a line with these words; returns it."""
        eventually(lambda: self._lines(words) or not self.listener.is_alive(), f"it said {words!r}", seconds=15)
        assert self._lines(words), f"it ended without {words!r}: {self.said}"
        self.started = self.started or [self.process.pid, *children(self.process.pid)]
        return self._lines(words)[0].strip()

    def _lines(self, words: str) -> list[str]:
        return [line for line in list(self.said) if words in line]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))

    def interrupt(self, how: signal.Signals) -> int:
        """Ctrl-C in a terminal goes to the whole group; returns how it exited."""
        os.killpg(self.process.pid, how)
        return self.process.wait(STOP_S)

    def assert_nothing_left(self) -> None:
        assert len(self.started) > 1
        eventually(lambda: not alive(self.started), "all of its processes are gone", seconds=2)


@contextmanager
def running(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> Iterator[Command]:
    with subprocess.Popen(
        [sys.executable, "-m", "app", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        command = Command(process)
        command.listener.start()
        try:
            yield command
        finally:
            process.kill()
            command.listener.join(STOP_S)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@SIGNALS
def test_cloud_starts_and_stops(how: signal.Signals, tmp_path: Path) -> None:
    with running("cloud", *FREE_PORTS, TMPDIR=str(tmp_path)) as command:
        line = command.wait_for("Ctrl-C stops it.")
        url = next(word for word in line.split() if word.startswith("http://")).rstrip(";")
        assert httpx.get(f"{url}/v2/models/digits/ready", trust_env=False).status_code == 200
        assert list(tmp_path.iterdir())
        assert command.interrupt(how) == 0
    command.assert_nothing_left()
    assert list(tmp_path.iterdir()) == []
    assert not any("Traceback" in said or "Aborted" in said for said in command.said)


def test_cloud_says_where_to_look_when_triton_ends_by_itself(tmp_path: Path) -> None:
    with running("cloud", *FREE_PORTS, TMPDIR=str(tmp_path)) as command:
        triton = int(command.wait_for("Ctrl-C stops it.").split()[1])
        os.kill(triton, signal.SIGKILL)
        sentence = command.wait_for("Triton ended by itself")
        assert command.process.wait(STOP_S) == 1
    assert "the end of its log: " in sentence
    command.assert_nothing_left()


def test_cloud_names_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running("cloud", "--grpc-port", str(port), "--http-port", "0", "--metrics-port", "0") as command:
            command.wait_for(f"Error: port {port} on 127.0.0.1 can't be had")
            assert command.process.wait(STOP_S) == 1


def demo_options(policy: Path) -> list[str | Path]:
    """The demo on free ports, with a policy file that says where the cloud is."""
    grpc, http, metrics, port = map(str, free_ports(4))
    policy.write_text(policy_text(f"grpc://127.0.0.1:{grpc}"))
    ports = ["--grpc-port", grpc, "--http-port", http, "--metrics-port", metrics, "--port", port]
    return ["demo", "--policy", policy, *ports]


def paste(command: Command) -> dict[str, Any]:
    """Runs the line that the demo prints, in bash, from anywhere; returns the gateway's answer."""
    (line,) = (said for said in command.said if said.strip().startswith("curl "))
    ended = subprocess.run(["bash", "-c", line], cwd="/", capture_output=True, text=True, timeout=30, check=True)
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def status_url(command: Command) -> str:
    (line,) = (said for said in command.said if said.strip().startswith("gateway "))
    return f"{line.split()[1]}/status"


def cloud_is_up(url: str) -> bool:
    targets = httpx.get(url, trust_env=False).json()["models"]["digits"]["targets"]
    return any(target["backend"] == "cloud" and target["available"] for target in targets)


@SIGNALS
def test_the_demo_does_what_it_says(how: signal.Signals, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with running(*demo_options(tmp_path / "policy.yaml"), TMPDIR=str(temporary)) as command:
        command.wait_for("Ctrl-C stops everything.")
        assert any("cloud    Triton (pid " in said for said in command.said)
        eventually(lambda: cloud_is_up(status_url(command)), "the gateway has found the cloud")
        answer = paste(command)
        assert answer["outputs"]["label"] == [7]
        assert answer["route"]["backend"] == "cloud"
        assert command.interrupt(how) == 0
    command.assert_nothing_left()
    assert list(temporary.iterdir()) == []
    assert not any("Traceback" in said for said in command.said)


def test_the_demo_lets_triton_be_killed_as_it_invites_to(tmp_path: Path) -> None:
    with running(*demo_options(tmp_path / "policy.yaml")) as command:
        command.wait_for("Ctrl-C stops everything.")
        (line,) = (said for said in command.said if "Triton (pid " in said)
        os.kill(int(line.split("(pid ")[1].split(")")[0]), signal.SIGKILL)
        eventually(lambda: not cloud_is_up(status_url(command)), "the gateway misses the cloud")
        answer = paste(command)
        assert (answer["outputs"]["label"], answer["route"]["backend"]) == ([7], "edge")
        assert answer["route"]["degraded"]
        assert command.interrupt(signal.SIGINT) == 0
    command.assert_nothing_left()


@SIGNALS
def test_the_demo_can_be_stopped_while_it_starts(how: signal.Signals, tmp_path: Path) -> None:
    with running(*demo_options(tmp_path / "policy.yaml")) as command:
        command.wait_for("Starting Triton")
        eventually(lambda: len(children(command.process.pid)) >= 2, "Triton was started")
        command.started = [command.process.pid, *children(command.process.pid)]
        command.interrupt(how)
    assert not any("Traceback" in said for said in command.said)
    eventually(lambda: not alive(command.started), "all of its processes are gone")


def test_without_the_clouds_environment_the_demo_says_why_and_serves(tmp_path: Path) -> None:
    """In a copy of the project in which nobody has made .venv-cloud."""
    for folder in ("app", "backends", "policies", "router", "deploy"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=lambda *_: ["__pycache__"])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with running("demo", "--port", "0", *FREE_PORTS, cwd=tmp_path, PYTHONPATH=str(tmp_path)) as command:
        command.wait_for("Ctrl-C stops everything.")
        (line,) = (said for said in command.said if said.strip().startswith("cloud "))
        assert "not running, everything is answered locally: " in line
        assert ".venv-cloud" in line
        assert str(tmp_path) in paste_path(command)
        answer = paste(command)
        assert (answer["outputs"]["label"], answer["route"]["backend"]) == ([7], "edge")
        assert command.interrupt(signal.SIGINT) == 0


def paste_path(command: Command) -> str:
    """The picture's path in the line to paste."""
    (line,) = (said for said in command.said if said.strip().startswith("curl "))
    return line.split("@")[1].split()[0]


def test_the_demo_goes_on_where_a_port_is_taken(tmp_path: Path) -> None:
    """Somebody else may have the cloud's port; the default policy file is good enough to serve locally."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ("--grpc-port", str(port), "--http-port", "0", "--metrics-port", "0", "--port", "0")
        with running("demo", "--policy", DEFAULT_POLICY, *options) as command:
            command.wait_for("Ctrl-C stops everything.")
            assert any(f"port {port} on 127.0.0.1 can't be had" in said for said in command.said)
            assert paste(command)["outputs"]["label"] == [7]
            assert command.interrupt(signal.SIGINT) == 0


def test_what_the_command_starts_is_what_the_tests_start() -> None:
    """The default ports are those of the default policy file."""
    assert f"grpc://127.0.0.1:{TritonProcess(CloudPorts()).ports.grpc}" in DEFAULT_POLICY.read_text()
