"""The drill's lab, for real: namespaces, a router between them, a real Triton; and that nothing of it is left over.

These need root, iproute2, iptables and util-linux, and fail where they lack one: a cable pull that was not tried is not
one that works.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from drills.child import Child
from drills.lab import FOLDER_PREFIX, Lab
from drills.line import LineFailed, RelayLine
from drills.network import CLOUD_ADDRESS, CLOUD_NAME, GRPC_PORT, NAMESPACES, PREFIX, RESOLVERS, NamespaceLine
from drills.record import Sample
from drills.scenarios import SCENARIOS, run
from drills.scene import Timing
from drills.streams import MARKERS
from tests.gateway_process import ROOT
from tests.integration.scenario import alive, children, eventually

VANISHES_S = 0.5
"""A connection that is not refused by then is one whose packets vanish: refusals come within a round trip."""

SHORT = Timing(warm_up=1.0, baseline=1.0, before=2.0, during=3.0, after=4.0)

ANSWER_ALL = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(connection.recv(4096))
    connection.close()
"""


def left_over(pid: int) -> list[str]:
    """What a process's drills have left on this machine: namespaces, resolvers, folders, mounts, interfaces."""
    marked = f"{PREFIX}-{pid}-*"
    found = [str(path) for folder in (NAMESPACES, RESOLVERS) if folder.is_dir() for path in folder.glob(marked)]
    found += map(str, Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}-{pid}-*"))
    found += [name for _, name in socket.if_nameindex() if name in ("wan", "to-site", "to-cloud")]
    mounts = Path("/proc/self/mounts").read_text(encoding="ascii").splitlines()
    return found + [mount for mount in mounts if f"{PREFIX}-{pid}-" in mount]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever a test here does, nothing is left."""
    yield
    assert left_over(os.getpid()) == []


@pytest.fixture
def line(tmp_path: Path) -> Iterator[NamespaceLine]:
    """Namespaces, with a server in the cloud that answers whatever it is sent."""
    line = NamespaceLine(MARKERS, tmp_path)
    server = Child(
        line.at_cloud([sys.executable, "-c", ANSWER_ALL, str(line.triton_ports[0])]), tmp_path / "server.log"
    )
    try:
        server.line(10)
        yield line
    finally:
        server.stop()
        line.close()


def ask(line: NamespaceLine, content: bytes = b"hello") -> bytes:
    """Sends something from the site to the cloud, and returns what comes back."""
    with line.site_socket() as connection:
        connection.settimeout(VANISHES_S)
        connection.connect((CLOUD_ADDRESS, GRPC_PORT))
        connection.sendall(content)
        return connection.recv(4096)


def resolved(line: NamespaceLine) -> str:
    """The address that the site finds for the cloud's name; empty for none."""
    found = subprocess.run(line.at_site(["getent", "hosts", CLOUD_NAME]), capture_output=True, text=True, check=False)
    return found.stdout.partition(" ")[0]


def test_what_the_site_sends_arrives_in_the_cloud_and_is_counted_on_the_wire(line: NamespaceLine) -> None:
    for _ in range(3):
        assert ask(line, MARKERS["primary"]) == MARKERS["primary"]
    wire = line.wire()
    assert wire.marked["primary"] == 6  # there and back
    assert wire.marked["phi"] == 0
    assert wire.packets >= 6


def test_a_cut_makes_packets_vanish_and_its_end_brings_the_line_back(line: NamespaceLine) -> None:
    line.cut()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            ask(line)
    line.restore()
    assert ask(line) == b"hello"


def test_a_connection_that_stands_hears_nothing_of_a_cut_and_lives_on_after_it(line: NamespaceLine) -> None:
    with line.site_socket() as connection:
        connection.settimeout(VANISHES_S)
        connection.connect((CLOUD_ADDRESS, GRPC_PORT))
        line.cut()
        connection.sendall(b"into the void")
        with pytest.raises(TimeoutError):
            connection.recv(100)
        line.restore()
        connection.settimeout(10)
        assert connection.recv(100) == b"into the void"


def test_refused_connections_are_refused_at_once(line: NamespaceLine) -> None:
    line.refuse()
    with pytest.raises(ConnectionRefusedError):
        ask(line)
    line.accept()
    assert ask(line) == b"hello"


def test_names_are_lost_and_come_back(line: NamespaceLine) -> None:
    assert resolved(line) == CLOUD_ADDRESS
    line.names_lost()
    assert resolved(line) == ""
    line.names_back()
    assert resolved(line) == CLOUD_ADDRESS


def test_with_every_packet_lost_nothing_arrives_and_mending_undoes_everything(line: NamespaceLine) -> None:
    line.set_loss(1.0)
    line.names_lost()
    line.set_rate(8.0)
    with pytest.raises(TimeoutError):
        ask(line)
    line.mend()
    assert ask(line) == b"hello"
    assert resolved(line) == CLOUD_ADDRESS


def own_network() -> list[str]:
    """The machine's own interfaces, routes and firewall."""
    asked = (["ip", "address"], ["ip", "route", "show", "table", "all"], ["iptables-save"])
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in asked]
    return [
        row for output in outputs for row in output.splitlines() if not row.startswith("#") and "valid_lft" not in row
    ]


def test_the_machines_own_network_is_left_as_it_is(tmp_path: Path) -> None:
    before = own_network()
    line = NamespaceLine(MARKERS, tmp_path)
    try:
        line.cut()
        line.set_loss(0.5)
        line.names_lost()
        assert own_network() == before
    finally:
        line.close()
    assert own_network() == before


def test_a_relay_says_plainly_what_it_cannot_do(tmp_path: Path) -> None:
    line = RelayLine(MARKERS, tmp_path)
    try:
        with pytest.raises(LineFailed, match="run as root"):
            line.set_loss(0.1)
        with pytest.raises(LineFailed, match="run as root"):
            line.names_lost()
    finally:
        line.close()


class Silent:
    """Listens to a run and says nothing."""

    def phase(self, what: str, seconds: float) -> None:
        """Nothing."""

    def saw(self, samples: Sequence[Sample]) -> None:
        """Nothing."""


@pytest.mark.parametrize("relay", [False, True], ids=["namespaces", "relay"])
def test_the_wan_is_cut_under_load_and_nobody_notices_but_by_degraded_answers(relay: bool) -> None:
    with Lab(relay=relay) as lab:
        record = asyncio.run(run(SCENARIOS["wan-cut"], lab, SHORT, Silent()))
    primary = [sample for sample in record.samples if sample.stream == "primary"]
    assert len(primary) > 700
    assert [sample for sample in primary if not sample.answered] == []
    during = [sample for sample in primary if record.began <= sample.due < record.ended]
    assert {sample.backend for sample in during} == {"edge"}
    assert primary[-1].backend == "cloud"
    assert record.wire is not None
    assert record.wire.marked["primary"] > 0
    assert record.wire.marked["phi"] == 0
    assert record.problems == ()


START_A_LAB = """
import sys, time
from drills.lab import Lab
with Lab(relay=False) as lab:
    gateway = lab.gateway("test")
    gateway.start()
    gateway.wait_started()
    print("up", flush=True)
    time.sleep(600)
"""


def start_lab() -> subprocess.Popen[str]:
    """A lab in a process of its own, up with everything in it."""
    process = subprocess.Popen([sys.executable, "-c", START_A_LAB], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "up\n"
    return process


@pytest.fixture(scope="module")
def killed_lab() -> int:
    """The process id of a lab that was killed with everything in it up."""
    process = start_lab()
    started = children(process.pid)
    process.kill()
    process.wait(10)
    eventually(lambda: not alive(started), "every process of a killed lab was gone")
    assert left_over(process.pid) != []
    return process.pid


@pytest.fixture(scope="module")
def next_lab(killed_lab: int) -> Iterator[subprocess.Popen[str]]:
    """The one after that."""
    with start_lab() as process:
        yield process
        process.send_signal(signal.SIGINT)  # harmless where a test has ended it


def test_what_a_killed_lab_leaves_behind_the_next_one_removes(killed_lab: int, next_lab: subprocess.Popen[str]) -> None:
    assert next_lab.poll() is None
    assert left_over(killed_lab) == []


def test_a_lab_that_is_interrupted_leaves_nothing(next_lab: subprocess.Popen[str]) -> None:
    started = children(next_lab.pid)
    assert len(started) >= 5
    next_lab.send_signal(signal.SIGINT)
    next_lab.wait(30)
    assert alive(started) == []
    assert left_over(next_lab.pid) == []
