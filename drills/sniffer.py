"""Counts what crosses a network interface, packet by packet, and which packets hold a stream's marker.

`python -m drills.sniffer` runs inside the site's namespace and looks at both directions of its interface. It prints a
line when it looks; each line on its input is answered with the counts so far, and it ends when its input does. It also
reports how many packets the kernel dropped before it could look at them: a count of zero is worth nothing otherwise.
"""

from __future__ import annotations

import argparse
import select
import socket
import struct
import sys
from collections.abc import Mapping

import msgspec

from drills.relay import parse_markers

ETH_P_ALL = 3
ETHERTYPE_IPV4 = 0x0800
ETHERNET_BYTES = 14
SOL_PACKET = 263
PACKET_STATISTICS = 6
SO_RCVBUFFORCE = 33
BUFFER_BYTES = 32 * 1024 * 1024
PACKET_BYTES = 256 * 1024
"""Larger than any packet, those that the kernel has put together included."""


class Sniffed(msgspec.Struct, frozen=True):
    """TCP packets with a payload, their payload's bytes, how many held each marker, and packets missed."""

    packets: int
    bytes: int
    marked: dict[str, int]
    missed: int


def tcp_payload(frame: bytes) -> bytes:
    """The TCP payload of an Ethernet frame; empty where there is none.

    Args:
        frame: A whole frame, from its Ethernet header on. Padding behind the IP packet is left out.
    """
    if len(frame) < ETHERNET_BYTES + 20 or struct.unpack_from("!H", frame, 12)[0] != ETHERTYPE_IPV4:
        return b""
    ip = ETHERNET_BYTES
    header_bytes = (frame[ip] & 0x0F) * 4
    if frame[ip + 9] != socket.IPPROTO_TCP or len(frame) < ip + header_bytes + 20:
        return b""
    total_bytes = struct.unpack_from("!H", frame, ip + 2)[0] or len(frame) - ip
    tcp = ip + header_bytes
    return frame[tcp + (frame[tcp + 12] >> 4) * 4 : ip + total_bytes]


class Sniffer:
    """Counts frames.

    Args:
        markers: Byte strings to look for, by name.
    """

    def __init__(self, markers: Mapping[str, bytes]) -> None:
        self._markers = markers
        self._packets = 0
        self._bytes = 0
        self._marked = dict.fromkeys(markers, 0)

    def look(self, frame: bytes) -> None:
        """Counts one frame."""
        payload = tcp_payload(frame)
        if not payload:
            return
        self._packets += 1
        self._bytes += len(payload)
        for name, marker in self._markers.items():
            if marker in payload:
                self._marked[name] += 1

    def sniffed(self, missed: int) -> Sniffed:
        """The counts so far."""
        return Sniffed(self._packets, self._bytes, dict(self._marked), missed)


def main() -> None:
    """Looks until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interface", required=True)
    parser.add_argument("--marker", action="append", default=[], metavar="NAME=HEX")
    options = parser.parse_args()
    sniffer = Sniffer(parse_markers(options.marker))
    missed = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        wire.bind((options.interface, ETH_P_ALL))
        wire.setblocking(False)
        print("looking", flush=True)
        while True:
            ready, _, _ = select.select([wire, sys.stdin], [], [])
            _drain(wire, sniffer)
            if sys.stdin in ready:
                if not sys.stdin.readline():
                    return
                missed += _missed(wire)
                print(msgspec.json.encode(sniffer.sniffed(missed)).decode(), flush=True)


def _drain(wire: socket.socket, sniffer: Sniffer) -> None:
    """Looks at every packet that is there."""
    while True:
        try:
            frame = wire.recv(PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:  # the interface went down; it may come back
            return
        sniffer.look(frame)


def _missed(wire: socket.socket) -> int:
    """Packets that the kernel dropped since this was last asked."""
    _, dropped = struct.unpack("II", wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return int(dropped)


if __name__ == "__main__":
    main()
