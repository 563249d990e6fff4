"""A site and a cloud in network namespaces of their own, with a router between them whose cable can be pulled.

    site 10.213.0.1 --- 10.213.0.2 wan 10.213.0.5 --- 10.213.0.6 cloud

- The link that goes down is the one beyond the router, so that the site's own link and routes stay as they are:
  packets vanish, as when a WAN is cut, and nothing is refused. For the same reason the router sends no ICMP errors.
- Nothing here touches the machine's own interfaces, routes or firewall.
- A namespace's name holds the process that made it, and when that process began: what a killed drill left behind is
  found by that, and removed by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from drills.child import Child, python
from drills.line import LOOPBACK, START_S, USUAL, LineFailed, RelayProcess
from drills.owner import is_gone, mark
from drills.record import Wire
from drills.relay import Gate, marker_options
from drills.sniffer import Sniffed

PREFIX = "drill"
CLOUD_NAME = "cloud.test"
GRPC_PORT = 8001
SITE_ADDRESS, ROUTER_TO_SITE = "10.213.0.1", "10.213.0.2"
ROUTER_TO_CLOUD, CLOUD_ADDRESS = "10.213.0.5", "10.213.0.6"
RESOLVERS = Path("/etc/netns")
NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
NEEDED = ("ip", "iptables", "setpriv")


def missing_for_namespaces() -> str:
    """Why namespaces cannot be had here and what to do about it, in a sentence; empty where they can."""
    if os.geteuid() != 0:
        return (
            "Network namespaces need root: run it with sudo, or add --relay, which needs no root but leaves out "
            "the scenarios that live below TCP."
        )
    missing = [tool for tool in NEEDED if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt install iproute2 iptables util-linux, or add --relay."
    return ""


class NamespaceLine:
    """Site, WAN and cloud, each in a network namespace of its own.

    Args:
        markers: Byte strings to count on the wire, by stream.
        folder: For logs.

    Raises:
        LineFailed: They cannot be had here; the message says why.
    """

    cloud_url = f"grpc://{CLOUD_NAME}:{GRPC_PORT}"
    triton_ports = (8001, 8000, 8002)

    def __init__(self, markers: Mapping[str, bytes], folder: Path) -> None:
        if problem := missing_for_namespaces():
            raise LineFailed(problem)
        remove_leftovers()
        owner = f"{PREFIX}-{mark()}"
        self.site, self.wan, self.cloud = (f"{owner}-{place}" for place in ("site", "wan", "cloud"))
        self._loss = 0.0
        self._names_are_lost = False
        self._open = ExitStack()
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self._make_namespaces()
            self._connect()
            self._start_processes(markers, folder)
            on_failure.pop_all()

    def at_site(self, command: Sequence[str]) -> list[str]:
        """Inside the site's namespace, and with its resolver."""
        return ["ip", "netns", "exec", self.site, *command]

    def at_cloud(self, command: Sequence[str]) -> list[str]:
        """Inside the cloud's namespace."""
        return ["ip", "netns", "exec", self.cloud, *command]

    def site_socket(self) -> socket.socket:
        """A TCP socket of the site's namespace; it stays there, whoever uses it."""
        with _inside(self.site):
            return socket.socket()

    def cut(self) -> None:
        """Pulls the cable between the router and the cloud."""
        _ip("-n", self.wan, "link", "set", "to-cloud", "down")

    def restore(self) -> None:
        """Plugs it in again."""
        _ip("-n", self.wan, "link", "set", "to-cloud", "up")

    def set_delay(self, rtt_s: float, jitter_s: float) -> None:
        """The relay before Triton delays what it passes on."""
        self._relay.set(replace(self._relay.conditions, rtt_s=rtt_s, jitter_s=jitter_s))

    def set_loss(self, share: float) -> None:
        """The router drops packets at random, in both directions."""
        if self._loss:
            self._firewall("-D", "FORWARD", *_loss_rule(self._loss))
        if share:
            self._firewall("-A", "FORWARD", *_loss_rule(share))
        self._loss = share

    def set_rate(self, bits_per_s: float | None) -> None:
        """The relay before Triton reads no faster."""
        self._relay.set(replace(self._relay.conditions, up_bits_per_s=bits_per_s))

    def refuse(self) -> None:
        """The relay resets its connections and stops listening."""
        self._relay.gate(Gate.REFUSING)

    def accept(self) -> None:
        """It listens again."""
        self._relay.gate(Gate.OPEN)

    def names_lost(self) -> None:
        """The router drops queries for names."""
        if not self._names_are_lost:
            self._firewall("-A", "INPUT", *_NAMES_RULE)
            self._names_are_lost = True

    def names_back(self) -> None:
        """They are answered again."""
        if self._names_are_lost:
            self._firewall("-D", "INPUT", *_NAMES_RULE)
            self._names_are_lost = False

    def wire(self) -> Wire:
        """What a packet socket on the site's interface saw."""
        sniffed = msgspec.json.decode(self._sniffer.ask({}), type=Sniffed)
        if sniffed.missed:
            raise LineFailed(f"{sniffed.missed} packets went by too fast to be looked at: lower the load.")
        return Wire(sniffed.packets, sniffed.bytes, sniffed.marked)

    def mend(self) -> None:
        """Cable in, no loss, names back, the usual delay."""
        self.restore()
        self.set_loss(0.0)
        self.names_back()
        self._relay.set(USUAL)

    def close(self) -> None:
        """Ends what runs in the namespaces, and removes them and the site's resolver."""
        self._open.close()
        for namespace in (self.site, self.wan, self.cloud):
            _remove(namespace)

    def _make_namespaces(self) -> None:
        resolver = RESOLVERS / self.site
        resolver.mkdir(parents=True)
        # One quick try: a resolver that waits five seconds for each of several would outlast the drill.
        resolver.joinpath("resolv.conf").write_text(f"nameserver {ROUTER_TO_SITE}\noptions timeout:1 attempts:1\n")
        for namespace in (self.site, self.wan, self.cloud):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")

    def _connect(self) -> None:
        cables = (
            (self.site, "wan", SITE_ADDRESS, "to-site", ROUTER_TO_SITE),
            (self.cloud, "wan", CLOUD_ADDRESS, "to-cloud", ROUTER_TO_CLOUD),
        )
        for place, end, address, router_end, router_address in cables:
            _ip("link", "add", end, "netns", place, "type", "veth", "peer", "name", router_end, "netns", self.wan)
            _ip("-n", place, "address", "add", f"{address}/30", "dev", end)
            _ip("-n", self.wan, "address", "add", f"{router_address}/30", "dev", router_end)
            _ip("-n", place, "link", "set", end, "up")
            _ip("-n", self.wan, "link", "set", router_end, "up")
            _ip("-n", place, "route", "add", "default", "via", router_address)
        _run("ip", "netns", "exec", self.wan, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self._firewall("-A", "OUTPUT", "-p", "icmp", "--icmp-type", "destination-unreachable", "-j", "DROP")

    def _start_processes(self, markers: Mapping[str, bytes], folder: Path) -> None:
        at_wan = ["ip", "netns", "exec", self.wan]
        record = f"--record={CLOUD_NAME}={CLOUD_ADDRESS}"
        names = Child([*at_wan, *python("drills.names", f"--address={ROUTER_TO_SITE}", record)], folder / "names.log")
        self._open.callback(names.stop)
        self._relay = RelayProcess(
            self.at_cloud([]), (CLOUD_ADDRESS, GRPC_PORT), (LOOPBACK, self.triton_ports[0]), {}, folder / "relay.log"
        )
        self._open.callback(self._relay.close)
        self._sniffer = Child(
            self.at_site(python("drills.sniffer", "--interface=wan", *marker_options(markers))), folder / "sniffer.log"
        )
        self._open.callback(self._sniffer.stop)
        names.line(START_S)
        self._sniffer.line(START_S)

    def _firewall(self, *rule: str) -> None:
        _run("ip", "netns", "exec", self.wan, "iptables", "-w", *rule)


_NAMES_RULE = ("-p", "udp", "--dport", "53", "-j", "DROP")


def _loss_rule(share: float) -> tuple[str, ...]:
    return ("-m", "statistic", "--mode", "random", "--probability", f"{share:.6f}", "-j", "DROP")


def remove_leftovers() -> None:
    """Removes the namespaces of drills that are gone, and ends what still runs in them."""
    found = {path.name for folder in (NAMESPACES, RESOLVERS) if folder.is_dir() for path in folder.iterdir()}
    for name in sorted(found):
        if is_gone(name, PREFIX):
            _remove(name)


def _remove(namespace: str) -> None:
    """Ends what runs in a namespace, and removes it and its resolver; harmless when there is none."""
    if NAMESPACES.joinpath(namespace).exists():
        for pid in _run("ip", "netns", "pids", namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "delete", namespace)
    shutil.rmtree(RESOLVERS / namespace, ignore_errors=True)
    with contextlib.suppress(OSError):  # others keep theirs there
        RESOLVERS.rmdir()


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """Puts the current thread into a network namespace for as long as the block takes."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as home, NAMESPACES.joinpath(namespace).open("rb") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise LineFailed(f"Cannot enter {namespace}: {os.strerror(ctypes.get_errno())}.")
        try:
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET) != 0:
                raise LineFailed(f"Cannot leave {namespace}: {os.strerror(ctypes.get_errno())}.")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> str:
    """Runs a command and returns what it prints.

    Raises:
        LineFailed: It failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LineFailed(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
