"""Reads the device's own sensors: what the kernel shows under /sys and /proc, what the firmware tells, and the disk.

Invariants:
- Nothing here runs on the event loop, and nothing waits for it: each source is read in a thread of its own, so that a
  read that never returns costs what that source would have told, and no more. The process can end all the same.
- A source that is not there, or says what cannot be understood, tells nothing. It is never an error.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.device import DeviceHealth, Flags

log = logging.getLogger(__name__)

TELL_EVERY_S = 1.0

SILENT_AFTER_S = 5.0
"""A source whose newest reading is older, and missed two turns, is one that does not answer."""

FIRMWARE_EVERY_S = 5.0
"""It takes a process each time; heat and voltage are seen in between by what the kernel shows."""

HAT_EVERY_S = 3.0
DISK_EVERY_S = 10.0
COMMAND_TIMEOUT_S = 2.0

PLAUSIBLE_C = (-40.0, 150.0)
"""A zone whose sensor is off shows a number all the same, such as -274."""

THROTTLED_FILE = "sys/devices/platform/soc*/soc*:firmware/get_throttled"
"""Of Raspberry Pi OS; the device tree has named the folders differently over time."""

PMIC_SLOPE, PMIC_OFFSET_W = 1.1451, 0.5879
"""What a Pi 5 draws, by what its power chip measures behind the converters: a fit that owners published."""

PMIC_RAIL = re.compile(r"(\w+)_([AV]) (?:current|volt)\(\d+\)=([0-9.]+)[AV]")


@dataclass(frozen=True, slots=True)
class Source:
    """One thing that can be read.

    Args:
        name: What it is called when it does not answer.
        every_s: How often to read it, seconds.
        read: Reads it; blocks, and is called in a thread.
    """

    name: str
    every_s: float
    read: Callable[[], DeviceHealth]


def sources(root: Path, state_dir: Path, has_hat: Callable[[], bool]) -> tuple[Source, ...]:
    """What can be read of a Raspberry Pi, or of anything less.

    Args:
        root: Where /sys, /proc and /usr are looked up.
        state_dir: Of whose disk the free space is told.
        has_hat: Says whether the policy file in force names a HAT; its library is not looked for otherwise.
    """
    return (
        Source("thermal", TELL_EVERY_S, lambda: read_thermal(root)),
        Source("kernel", TELL_EVERY_S, lambda: read_kernel(root)),
        Source("firmware", FIRMWARE_EVERY_S, lambda: read_firmware(root)),
        Source("disk", DISK_EVERY_S, lambda: read_disk(state_dir)),
        Source("hat", HAT_EVERY_S, lambda: read_hat() if has_hat() else DeviceHealth()),
    )


class DeviceSensing:
    """Reads sources for as long as it runs, and tells what they say together.

    Args:
        sources: What to read.
        tell: Told each second, on the event loop.
        clock: Gives monotonic seconds.
    """

    def __init__(
        self, sources: Sequence[Source], tell: Callable[[DeviceHealth], None], clock: Callable[[], float]
    ) -> None:
        self._sources = sources
        self._tell = tell
        self._clock = clock
        self._latest: dict[str, tuple[float, DeviceHealth]] = {}
        self._over = threading.Event()

    async def run(self) -> None:
        """Reads and tells until it is cancelled."""
        began = self._clock()
        for source in self._sources:
            # Daemons, for one that hangs in the kernel must not keep the process from ending.
            threading.Thread(target=self._follow, args=(source,), name=f"device-{source.name}", daemon=True).start()
        try:
            while True:
                await asyncio.sleep(TELL_EVERY_S)
                self._tell(together(self._sources, self._latest, began, self._clock()))
        finally:
            self._over.set()

    def _follow(self, source: Source) -> None:
        failed = False
        while True:
            try:
                self._latest[source.name] = (self._clock(), source.read())
            except Exception:  # what a sensor or a vendor's library does must not end the others
                if not failed:
                    log.exception("reading the device's %s failed", source.name)
                failed = True
            if self._over.wait(source.every_s):
                return


def together(
    sources: Iterable[Source], latest: Mapping[str, tuple[float, DeviceHealth]], began: float, now: float
) -> DeviceHealth:
    """What all sources say, and which of them have fallen silent.

    Args:
        sources: Those that are read.
        latest: When each was read last, and what it said, by name.
        began: When reading began, monotonic seconds.
        now: Monotonic seconds.
    """
    health = DeviceHealth()
    silent = []
    for source in sources:
        at, said = latest.get(source.name, (began, DeviceHealth()))
        if now - at > max(SILENT_AFTER_S, 3 * source.every_s):
            silent.append(source.name)
        else:
            health = health.merged(said)
    return health.merged(DeviceHealth(silent=tuple(silent)))


def read_thermal(root: Path) -> DeviceHealth:
    """Temperature, fan, voltage, and what the Pi's own kernel knows of throttling without any tool."""
    hwmon = {(_text(folder / "name") or ""): folder for folder in _folders(root / "sys/class/hwmon", "hwmon*")}
    volt = _number(hwmon["rpi_volt"] / "in0_lcrit_alarm") if "rpi_volt" in hwmon else None
    told = next((_text(file) for file in root.glob(THROTTLED_FILE)), None)
    now, since_boot = throttling(told or "")
    fans = (_number(folder / "fan1_input") for name, folder in hwmon.items() if "fan" in name)
    return DeviceHealth(
        soc_c=_soc_c(root / "sys/class/thermal"),
        now=now.merged(Flags(under_voltage=None if volt is None else volt != 0)),
        since_boot=since_boot,
        fan_rpm=next((fan for fan in fans if fan is not None), None),
    )


def _soc_c(thermal: Path) -> float | None:
    """The processor's temperature, of the zone that the device tree names after it; a PC's zones mean other things."""
    for zone in _folders(thermal, "thermal_zone*"):
        kind = _text(zone / "type")
        millis = _number(zone / "temp") if kind in ("cpu-thermal", "soc-thermal") else None
        if millis is not None and PLAUSIBLE_C[0] <= millis / 1000 <= PLAUSIBLE_C[1]:
            return millis / 1000
    return None


def read_kernel(root: Path) -> DeviceHealth:
    """Clock, load and memory."""
    clocks = [
        kilohertz * 1000
        for cpu in _folders(root / "sys/devices/system/cpu", "cpu[0-9]*")
        if (kilohertz := _number(cpu / "cpufreq/scaling_cur_freq")) is not None
    ]
    load = (_text(root / "proc/loadavg") or "").split()
    meminfo = _text(root / "proc/meminfo") or ""
    bytes_of = {name: int(kibibytes) * 1024 for name, kibibytes in re.findall(r"^(\w+): +(\d+) kB$", meminfo, re.M)}
    return DeviceHealth(
        cpu_hz=max(clocks, default=None),
        load_1m=_as_number(load[0]) if load else None,
        memory_available_bytes=bytes_of.get("MemAvailable"),
        memory_bytes=bytes_of.get("MemTotal"),
    )


def read_firmware(root: Path) -> DeviceHealth:
    """What `vcgencmd` tells, where there is one: throttling now and since boot, and the power chip's rails."""
    command = root / "usr/bin/vcgencmd"
    now, since_boot = throttling(_said(command, "get_throttled"))
    return DeviceHealth(now=now, since_boot=since_boot, power_w=board_watts(_said(command, "pmic_read_adc")))


def throttling(answer: str) -> tuple[Flags, Flags]:
    """The flags now and since boot, of `throttled=0x50005` as the tool says it, or `50005` as the kernel does."""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", answer.strip())
    if found is None:
        return Flags(), Flags()
    bits = int(found[1], 16)
    now, since_boot = (Flags(*(bool(bits >> first + flag & 1) for flag in range(4))) for first in (0, 16))
    return now, since_boot


def board_watts(answer: str) -> float | None:
    """What the board draws, of the power chip's currents and voltages; None without a rail that has both."""
    measured: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for rail, unit, text in PMIC_RAIL.findall(answer):
        value = _as_number(text)
        if value is not None:
            measured[unit][rail] = value
    amperes, volts = measured["A"], measured["V"]
    watts = [amperes[rail] * volts[rail] for rail in amperes.keys() & volts.keys()]
    return PMIC_SLOPE * math.fsum(watts) + PMIC_OFFSET_W if watts else None


def read_disk(folder: Path) -> DeviceHealth:
    """The disk that a folder is on, or will be when it is made."""
    for candidate in (folder.absolute(), *folder.absolute().parents):
        try:
            disk = os.statvfs(candidate)
        except FileNotFoundError:
            continue
        except OSError:
            break
        return DeviceHealth(disk_free_bytes=disk.f_bavail * disk.f_frsize, disk_bytes=disk.f_blocks * disk.f_frsize)
    return DeviceHealth()


def read_hat() -> DeviceHealth:
    """The accelerator, while a model is open on it: to open it only to look might keep a model from being opened."""
    from backends.hailo_device import DEVICE  # only here: a gateway without a HAT need not load it

    hat = DEVICE.health()
    if hat is None:
        return DeviceHealth()
    return DeviceHealth(hat_c=hat.temperature_c, hat_w=hat.power_w, hat_throttled=hat.throttled)


def _said(command: Path, argument: str) -> str:
    """What the firmware's tool answers; empty where there is none, or it fails or takes too long."""
    try:
        done = subprocess.run(
            [command, argument],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _folders(parent: Path, pattern: str) -> list[Path]:
    """Those that fit, the lower number first; none where the parent is not there."""
    return sorted(parent.glob(pattern), key=lambda path: (len(path.name), path.name))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    return None if text is None else _as_number(text)


def _as_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
