"""How the device is: what its sensors say, and whether that strains it. Pure: time comes in as an argument.

Invariants of `Watch`:
- From `shift_above_c` on a device is at least WARM, and from `throttles_at_c` on, or while its firmware slows it down,
  THROTTLED.
- It is WARM earlier only where it would throttle within `FORESEEN_S` if it went on as it does, and never below the
  middle between `back_below_c` and `shift_above_c`: a little noise is no rise.
- Once strained it stays so until it was below `back_below_c`, and not slowed down, for `COOL_FOR_S` without a break. So
  no temperature that stays within the band changes its mind, and it cannot flap faster than that.
- Under-voltage alone is WEAK, and for `COOL_FOR_S` after it was last seen: it comes and goes with every burst of work.
- What cannot be read strains nothing: a sensor that falls silent is as good as cool after `WINDOW_S` and `COOL_FOR_S`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

WINDOW_S = 10.0
"""The rate of rise is taken over so many seconds."""

LEAST_SPAN_S = 3.0
"""Readings that are closer together than this say nothing of a rise."""

FORESEEN_S = 15.0
"""How far ahead to look: what shifting is to prevent takes a while to stop rising when its cause has gone."""

COOL_FOR_S = 10.0
"""A die cools by degrees as soon as its load goes, long before its heat sink does: it is not believed at once."""


class Strain(Enum):
    """What the device can be asked for, from all to least."""

    NORMAL = "normal"
    WEAK = "weak"
    """Its voltage is too low: it does what it must."""
    WARM = "warm"
    """It is about to throttle: what can be done elsewhere is."""
    THROTTLED = "throttled"
    """It is slowed down already; otherwise as WARM."""

    @property
    def shifts(self) -> bool:
        """Whether requests go elsewhere where they may."""
        return self in (Strain.WARM, Strain.THROTTLED)

    @property
    def spares(self) -> bool:
        """Whether what no answer depends on is left out."""
        return self is not Strain.NORMAL


@dataclass(frozen=True, slots=True)
class Flags:
    """What the firmware says of power and heat; None where it says nothing.

    Args:
        under_voltage: The supply does not keep its voltage.
        frequency_capped: The processor may not go as fast as it could.
        throttled: It is slowed down.
        soft_limit: It is at the temperature where slowing down begins.
    """

    under_voltage: bool | None = None
    frequency_capped: bool | None = None
    throttled: bool | None = None
    soft_limit: bool | None = None

    def merged(self, other: Flags) -> Flags:
        """What either says: a flag is set if it is in one of them, and None if neither knows."""
        return Flags(*(_either(getattr(self, flag.name), getattr(other, flag.name)) for flag in fields(self)))


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """What the device's sensors say. Whatever is not there, or cannot be read, is None.

    Args:
        soc_c: Temperature of the processor, °C.
        hat_c: Temperature of the accelerator, °C.
        now: What the firmware says of power and heat.
        since_boot: What it has said at any time since the device was started.
        hat_throttled: Whether the accelerator slows itself down.
        cpu_hz: Clock of the fastest core.
        load_1m: Processes that run or want to, over a minute.
        memory_available_bytes: Memory that can be had without swapping.
        memory_bytes: All of it.
        disk_free_bytes: Space that this process may still fill where it keeps its state.
        disk_bytes: All of it.
        fan_rpm: Turns of the fan a minute.
        power_w: What the whole board draws, watts, estimated.
        hat_w: What the accelerator draws, watts.
        silent: Names of the sources that did not answer in time.
    """

    soc_c: float | None = None
    hat_c: float | None = None
    now: Flags = Flags()
    since_boot: Flags = Flags()
    hat_throttled: bool | None = None
    cpu_hz: float | None = None
    load_1m: float | None = None
    memory_available_bytes: int | None = None
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    disk_bytes: int | None = None
    fan_rpm: float | None = None
    power_w: float | None = None
    hat_w: float | None = None
    silent: tuple[str, ...] = ()

    def merged(self, other: DeviceHealth) -> DeviceHealth:
        """What both say together; where both say something, this one is believed, and flags that either has are set."""
        merged: dict[str, Any] = {
            "now": self.now.merged(other.now),
            "since_boot": self.since_boot.merged(other.since_boot),
            "silent": (*self.silent, *other.silent),
        }
        for field in fields(self):
            if field.name not in merged:
                mine = getattr(self, field.name)
                merged[field.name] = getattr(other, field.name) if mine is None else mine
        return DeviceHealth(**merged)


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """How warm the device may get. The defaults are a Raspberry Pi 5's, which slows down from 80 °C on, and hard at 85.

    Args:
        shift_above_c: From this temperature of the processor on, requests go elsewhere where they may, °C.
        back_below_c: Below this one they come back, °C.
        throttles_at_c: From this one on it slows itself down, °C.
    """

    shift_above_c: float = 75.0
    back_below_c: float = 68.0
    throttles_at_c: float = 80.0

    def __post_init__(self) -> None:
        if not self.back_below_c < self.shift_above_c <= self.throttles_at_c:
            raise ValueError(
                "back_below_c must be below shift_above_c, and that not above throttles_at_c; they are "
                f"{self.back_below_c:g}, {self.shift_above_c:g} and {self.throttles_at_c:g}"
            )


@dataclass(frozen=True, slots=True)
class DeviceView:
    """The device as policies see it."""

    health: DeviceHealth = DeviceHealth()
    strain: Strain = Strain.NORMAL


@dataclass(frozen=True, slots=True)
class Watch:
    """What has been seen of the device so far, as far as it still matters.

    Args:
        strain: What follows from it.
        readings: When, monotonic seconds, and °C, of the last `WINDOW_S`; ascending.
        eased_at: Since when nothing strains it, or None while something does.
        weak_at: When its voltage was last too low, or None.
    """

    strain: Strain = Strain.NORMAL
    readings: tuple[tuple[float, float], ...] = ()
    eased_at: float | None = None
    weak_at: float | None = None

    def after(self, health: DeviceHealth, now: float, limits: DeviceLimits) -> Watch:
        """The watch after another look at the device.

        Args:
            health: What was seen.
            now: Monotonic seconds; later than at the look before.
            limits: How warm it may get.
        """
        kept = tuple(reading for reading in self.readings if reading[0] > now - WINDOW_S)
        readings = kept if health.soc_c is None else (*kept, (now, health.soc_c))
        celsius = readings[-1][1] if readings else None
        slowed = bool(health.now.throttled or health.now.soft_limit or health.hat_throttled)
        slowed |= celsius is not None and celsius >= limits.throttles_at_c
        seen = replace(
            self,
            readings=readings,
            eased_at=_eased_at(self.eased_at, now, slowed, celsius, limits),
            weak_at=now if health.now.under_voltage else self.weak_at,
        )
        return replace(seen, strain=seen._strain(now, slowed, celsius, limits))

    @property
    def rise_c_per_s(self) -> float:
        """How fast it gets warmer: the slope of the line nearest to the readings; 0 where there are too few."""
        if len(self.readings) < 3 or self.readings[-1][0] - self.readings[0][0] < LEAST_SPAN_S:
            return 0.0
        middle_s = sum(at for at, _ in self.readings) / len(self.readings)
        middle_c = sum(celsius for _, celsius in self.readings) / len(self.readings)
        spread = sum((at - middle_s) * (at - middle_s) for at, _ in self.readings)
        return sum((at - middle_s) * (celsius - middle_c) for at, celsius in self.readings) / spread

    def _strain(self, now: float, slowed: bool, celsius: float | None, limits: DeviceLimits) -> Strain:
        if slowed:
            return Strain.THROTTLED
        if self.strain.shifts:
            recovered = self.eased_at is not None and now - self.eased_at >= COOL_FOR_S
            strained = not recovered
        else:
            strained = celsius is not None and (celsius >= limits.shift_above_c or self._foresees(celsius, limits))
        if strained:
            return Strain.WARM
        weak = self.weak_at is not None and now - self.weak_at < COOL_FOR_S
        return Strain.WEAK if weak else Strain.NORMAL

    def _foresees(self, celsius: float, limits: DeviceLimits) -> bool:
        """Whether it will throttle soon if it goes on like this."""
        middle = (limits.back_below_c + limits.shift_above_c) / 2
        return celsius >= middle and celsius + FORESEEN_S * self.rise_c_per_s >= limits.throttles_at_c


def _eased_at(
    before: float | None, now: float, slowed: bool, celsius: float | None, limits: DeviceLimits
) -> float | None:
    if slowed or (celsius is not None and celsius >= limits.back_below_c):
        return None
    return now if before is None else before


def _either(one: bool | None, other: bool | None) -> bool | None:
    return other if one is None else one or bool(other)
