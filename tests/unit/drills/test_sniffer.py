"""What the sniffer reads out of a frame."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from drills.sniffer import Sniffer, tcp_payload

MARKER = bytes(range(32))


def frame(
    payload: bytes, *, protocol: int = 6, ethertype: int = 0x0800, ip_options: int = 0, tcp_options: int = 0
) -> bytes:
    """An Ethernet frame with an IPv4 packet with a TCP segment; options are counted in words of four bytes."""
    tcp = struct.pack("!HHIIBBHHH", 40000, 8001, 1, 1, (5 + tcp_options) << 4, 0x18, 512, 0, 0) + bytes(4 * tcp_options)
    total = 20 + 4 * ip_options + len(tcp) + len(payload)
    ip = struct.pack("!BBHHHBBH4s4s", 0x40 | (5 + ip_options), 0, total, 0, 0, 64, protocol, 0, bytes(4), bytes(4))
    return bytes(12) + struct.pack("!H", ethertype) + ip + bytes(4 * ip_options) + tcp + payload


@given(st.binary(max_size=200), st.integers(0, 10), st.integers(0, 10), st.integers(0, 40))
def test_the_payload_is_found_behind_any_options_and_before_any_padding(
    payload: bytes, ip_options: int, tcp_options: int, padding: int
) -> None:
    assert tcp_payload(frame(payload, ip_options=ip_options, tcp_options=tcp_options) + bytes(padding)) == payload


@given(st.binary(max_size=200))
def test_no_frame_whatever_is_in_it_stops_the_sniffer(content: bytes) -> None:
    tcp_payload(content)
    tcp_payload(bytes(12) + b"\x08\x00" + content)


def test_what_is_not_tcp_over_ipv4_has_no_payload() -> None:
    assert tcp_payload(frame(MARKER, protocol=17)) == b""
    assert tcp_payload(frame(MARKER, ethertype=0x86DD)) == b""


def test_packets_are_counted_by_the_markers_that_they_hold() -> None:
    sniffer = Sniffer({"primary": MARKER, "phi": bytes(reversed(MARKER))})
    for payload in (b"", b"handshake", b".." + MARKER + b"..", MARKER * 3):
        sniffer.look(frame(payload))
    sniffed = sniffer.sniffed(missed=0)
    assert sniffed.packets == 3
    assert sniffed.bytes == len(b"handshake") + 36 + 96
    assert sniffed.marked == {"primary": 2, "phi": 0}
