"""The line between a site and its cloud: what a drill can do to it, and the line that is nothing but a relay."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from drills.child import Child, python
from drills.record import Wire
from drills.relay import Conditions, Counts, Gate, Order, marker_options

BASE_RTT_S = 0.020
"""What a line is like when nothing is wrong with it."""

USUAL = Conditions(rtt_s=BASE_RTT_S)

START_S = 10.0
"""Longest that one of a line's processes may take to start, on a busy Raspberry Pi."""

LOOPBACK = "127.0.0.1"


class LineFailed(Exception):
    """A line cannot be made, or cannot do what it was told; the message says what to do about it."""


class Line(Protocol):
    """A site, a cloud and what is between them.

    What is done to it stays until it is undone or `mend` is called, which may be at any time.

    Attributes:
        cloud_url: The cloud's address as a policy file names it.
        triton_ports: Ports for gRPC, HTTP and metrics that Triton is to have on loopback where the cloud is.
    """

    cloud_url: str
    triton_ports: tuple[int, int, int]

    def at_site(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command at the site."""
        ...

    def at_cloud(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command where the cloud is."""
        ...

    def site_socket(self) -> socket.socket:
        """A new TCP socket in the site's network."""
        ...

    def cut(self) -> None:
        """From now on packets vanish in both directions, and nobody is told."""
        ...

    def restore(self) -> None:
        """Undoes `cut`."""
        ...

    def set_delay(self, rtt_s: float, jitter_s: float) -> None:
        """Sets the round-trip time and by how much each way's delay may deviate, both in seconds."""
        ...

    def set_loss(self, share: float) -> None:
        """Loses this share of all packets, between 0 and 1, in both directions.

        Raises:
            LineFailed: This line cannot lose packets.
        """
        ...

    def set_rate(self, bits_per_s: float | None) -> None:
        """Limits what the site can send; None takes the limit away."""
        ...

    def refuse(self) -> None:
        """Resets every connection and refuses new ones."""
        ...

    def accept(self) -> None:
        """Undoes `refuse`."""
        ...

    def names_lost(self) -> None:
        """From now on queries for names get no answer.

        Raises:
            LineFailed: This line has no names to lose.
        """
        ...

    def names_back(self) -> None:
        """Undoes `names_lost`."""
        ...

    def wire(self) -> Wire:
        """What has crossed the line since it was made.

        Raises:
            LineFailed: Not everything could be looked at.
        """
        ...

    def mend(self) -> None:
        """Undoes whatever was done to the line."""
        ...

    def close(self) -> None:
        """Leaves nothing behind. May be called twice."""
        ...


class RelayProcess:
    """A relay in a process of its own, and the conditions that it is under.

    Args:
        prefix: Goes in front of the command, to run it elsewhere.
        listen: Host and port; port 0 takes a free one.
        upstream: Host and port to relay to.
        markers: Byte strings to count, by name.
        log: Gets its errors.

    Attributes:
        port: The port that it listens on.
    """

    def __init__(
        self,
        prefix: Sequence[str],
        listen: tuple[str, int],
        upstream: tuple[str, int],
        markers: Mapping[str, bytes],
        log: Path,
    ) -> None:
        addresses = [f"--listen={listen[0]}:{listen[1]}", f"--upstream={upstream[0]}:{upstream[1]}"]
        self._child = Child([*prefix, *python("drills.relay", *addresses, *marker_options(markers))], log)
        self.port = int(self._child.line(START_S))
        self._conditions = Conditions()
        self.set(USUAL)

    @property
    def conditions(self) -> Conditions:
        """What it was told last."""
        return self._conditions

    def set(self, conditions: Conditions) -> None:
        """Puts the line under other conditions."""
        self._child.ask(Order(conditions))
        self._conditions = conditions

    def gate(self, gate: Gate) -> None:
        """Opens or closes it and leaves everything else."""
        self.set(replace(self._conditions, gate=gate))

    def counts(self) -> Counts:
        """What went up so far."""
        return msgspec.json.decode(self._child.ask(Order()), type=Counts)

    def close(self) -> None:
        """Ends it."""
        self._child.stop()


class RelayLine:
    """Site and cloud on one machine's loopback, a relay between them. Needs no root.

    It cannot lose packets, and there are no names on it: what lives below TCP takes namespaces.

    Args:
        markers: Byte strings to count in what the site sends, by stream.
        folder: For logs.
    """

    def __init__(self, markers: Mapping[str, bytes], folder: Path) -> None:
        self.triton_ports = _free_ports()
        self._relay = RelayProcess([], (LOOPBACK, 0), (LOOPBACK, self.triton_ports[0]), markers, folder / "relay.log")
        self.cloud_url = f"grpc://{LOOPBACK}:{self._relay.port}"

    def at_site(self, command: Sequence[str]) -> list[str]:
        """The command itself."""
        return list(command)

    def at_cloud(self, command: Sequence[str]) -> list[str]:
        """The command itself."""
        return list(command)

    def site_socket(self) -> socket.socket:
        """A TCP socket."""
        return socket.socket()

    def cut(self) -> None:
        """The relay passes nothing on, and forgets what new connections send."""
        self._relay.gate(Gate.SILENT)

    def restore(self) -> None:
        """It passes everything on again."""
        self._relay.gate(Gate.OPEN)

    def set_delay(self, rtt_s: float, jitter_s: float) -> None:
        """It delays what it passes on."""
        self._relay.set(replace(self._relay.conditions, rtt_s=rtt_s, jitter_s=jitter_s))

    def set_loss(self, share: float) -> None:
        """Not possible.

        Raises:
            LineFailed: Always.
        """
        raise LineFailed("A relay cannot lose packets, TCP would notice nothing of it: run as root, without --relay.")

    def set_rate(self, bits_per_s: float | None) -> None:
        """It passes no more than that up."""
        self._relay.set(replace(self._relay.conditions, up_bits_per_s=bits_per_s))

    def refuse(self) -> None:
        """It stops listening and resets what is there."""
        self._relay.gate(Gate.REFUSING)

    def accept(self) -> None:
        """It listens again."""
        self._relay.gate(Gate.OPEN)

    def names_lost(self) -> None:
        """Not possible.

        Raises:
            LineFailed: Always.
        """
        raise LineFailed("The relay is found by its address, no name is asked for: run as root, without --relay.")

    def names_back(self) -> None:
        """Nothing to do: no names were lost."""

    def wire(self) -> Wire:
        """What the relay passed on."""
        counts = self._relay.counts()
        return Wire(counts.chunks, counts.bytes, counts.marked)

    def mend(self) -> None:
        """The usual conditions."""
        self._relay.set(USUAL)

    def close(self) -> None:
        """Ends the relay."""
        self._relay.close()


def _free_ports() -> tuple[int, int, int]:
    """Three ports that are free now."""
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        for listener in (first, second, third):
            listener.bind((LOOPBACK, 0))
        return first.getsockname()[1], second.getsockname()[1], third.getsockname()[1]
