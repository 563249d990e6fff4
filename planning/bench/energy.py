"""The machine's energy, where it counts it itself: the kernel's powercap zones (RAPL). A Raspberry Pi has none."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


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
