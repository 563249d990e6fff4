"""The energy of the machine that answers: counted by its kernel (powercap zones, RAPL), or estimated by its gateway.

A Raspberry Pi counts none, but its gateway tells in `/status` what the board draws, which `docs/device.md` calls an
estimate too. A gateway on another machine is asked, never the machine that asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

POWERCAP = Path("/sys/class/powercap")


LOOK_EVERY_S = 1.0
"""More often than a gateway reads its board, which is every five seconds."""

LOOK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Energy:
    """What a round took.

    Args:
        joules: Of the whole machine.
        estimated: Whether it is the gateway's estimate, not the kernel's count.
    """

    joules: float
    estimated: bool


@dataclass(frozen=True, slots=True)
class Look:
    """What a gateway said that its board draws; None: it does not tell.

    Args:
        at: When, seconds.
        watts: So much.
    """

    at: float
    watts: float | None


class _Device(msgspec.Struct):
    power_w: float | None = None


class _Status(msgspec.Struct):
    """What of `/status` is needed here."""

    device: _Device = msgspec.field(default_factory=_Device)


def joules_of(looks: Sequence[Look], ended: float) -> float | None:
    """The energy from the first look to the end: each counts until the next one. None where one told nothing.

    Args:
        looks: In order.
        ended: When the round did, seconds; not before the last look.
    """
    if not looks:
        return None
    ends = [*(look.at for look in looks[1:]), ended]
    joules = 0.0
    for look, end in zip(looks, ends, strict=True):
        if look.watts is None:
            return None
        joules += look.watts * (end - look.at)
    return joules


async def follow_board(url: str, headers: Mapping[str, str], clock: Callable[[], float], looks: list[Look]) -> None:
    """Looks every second, until it is cancelled, at what a gateway's board draws; once only where it does not tell.

    Args:
        url: The gateway's base URL.
        headers: For it, such as Authorization.
        clock: Monotonic seconds.
        looks: Gets each look.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(LOOK_TIMEOUT_S)) as session:
        while not looks or looks[-1].watts is not None:
            at = clock()
            looks.append(Look(at, await _watts(session, f"{url}/status", headers)))
            await asyncio.sleep(max(0.0, at + LOOK_EVERY_S - clock()))


async def _watts(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> float | None:
    try:
        async with session.get(url, headers=headers) as response:
            return msgspec.json.decode(await response.read(), type=_Status).device.power_w
    except (aiohttp.ClientError, OSError, msgspec.MsgspecError, UnicodeDecodeError):  # a TimeoutError is an OSError
        return None


class EnergyMeter:
    """Joules from one look to the next.

    Args:
        zones: Where the kernel shows its zones.
    """

    def __init__(self, zones: Path = POWERCAP) -> None:
        # intel-rapl:0 is a package; intel-rapl:0:1 is a part of it, which would count twice.
        self._zones = sorted(zone for zone in zones.glob("*-rapl:*") if zone.name.count(":") == 1)
        self._last = self._read()

    def joules(self) -> float | None:
        """Since it was asked last, or made; None where the machine does not tell."""
        before, self._last = self._last, self._read()
        if not before or before.keys() != self._last.keys():
            return None
        micro = 0
        for zone, (now, wraps_at) in self._last.items():
            used = now - before[zone][0]
            micro += used if used >= 0 else used + wraps_at
        return micro / 1e6

    def _read(self) -> dict[Path, tuple[int, int]]:
        try:
            return {zone: (_number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")) for zone in self._zones}
        except (OSError, ValueError):  # most kernels show it to root alone
            return {}


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
