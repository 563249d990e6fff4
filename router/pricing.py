"""What an inference costs, in US dollars. Pure arithmetic; a month is 30 days, as in every figure we quote.

The test over this module reproduces the published reference: a $200 device kept three years at 5 W costs $4.70
per million inferences at 2.16 M a month and $0.157 at 64.8 M; a $2/h node at 200/s costs $2.78.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

DAYS_PER_MONTH = 30
HOURS_PER_MONTH = DAYS_PER_MONTH * 24
SECONDS_PER_HOUR = 3600
BYTES_PER_GB = 1e9


class Price(Protocol):
    """A price book's entry for one backend."""

    @property
    def usd_per_inference(self) -> float:
        """Dollars for one row of input."""
        ...

    @property
    def usd_per_byte_out(self) -> float:
        """Dollars for each byte that leaves the premises on the way there."""
        ...


def _require_amounts(price: object, *names: str) -> None:
    for name in names:
        value = getattr(price, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be an amount of at least 0, not {value}")


def _require_above_zero(price: object, *names: str) -> None:
    for name in names:
        value = getattr(price, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, not {value}")


@dataclass(frozen=True, slots=True)
class DevicePrice:
    """Total cost of ownership of a device, spread over the inferences that it makes.

    Args:
        hardware_usd: Purchase price.
        lifetime_years: Years over which it is written off.
        watts: Mean power drawn.
        usd_per_kwh: Price of electricity.
        operations_usd_per_year: Updates, monitoring, spares.
        inferences_per_month: How many it really makes; low utilisation shows up here.
    """

    hardware_usd: float
    lifetime_years: float
    watts: float
    usd_per_kwh: float
    operations_usd_per_year: float
    inferences_per_month: float

    def __post_init__(self) -> None:
        _require_above_zero(self, "lifetime_years", "inferences_per_month")
        _require_amounts(self, "hardware_usd", "watts", "usd_per_kwh", "operations_usd_per_year")

    @property
    def usd_per_month(self) -> float:
        """Write-off, electricity and operations of one month."""
        hardware = self.hardware_usd / (self.lifetime_years * 12)
        power = self.watts / 1000 * HOURS_PER_MONTH * self.usd_per_kwh
        return hardware + power + self.operations_usd_per_year / 12

    @property
    def usd_per_inference(self) -> float:
        """One month's cost over one month's inferences."""
        return self.usd_per_month / self.inferences_per_month

    @property
    def usd_per_byte_out(self) -> float:
        """Nothing leaves a device that stands on the premises."""
        return 0.0


@dataclass(frozen=True, slots=True)
class NodePrice:
    """A rented node, spread over the inferences that it makes while it is rented.

    Args:
        node_usd_per_hour: Rent.
        inferences_per_second: Throughput with batching, at full load.
        utilisation: Share of that throughput that is really used, above 0 and up to 1.
        egress_usd_per_gb: Price of a gigabyte (10^9 bytes) sent there.
    """

    node_usd_per_hour: float
    inferences_per_second: float
    utilisation: float = 1.0
    egress_usd_per_gb: float = 0.0

    def __post_init__(self) -> None:
        _require_above_zero(self, "inferences_per_second", "utilisation")
        _require_amounts(self, "node_usd_per_hour", "egress_usd_per_gb")
        if self.utilisation > 1:
            raise ValueError(f"utilisation must be above 0 and at most 1, not {self.utilisation}")

    @property
    def usd_per_inference(self) -> float:
        """An hour's rent over an hour's inferences."""
        return self.node_usd_per_hour / (self.inferences_per_second * SECONDS_PER_HOUR * self.utilisation)

    @property
    def usd_per_byte_out(self) -> float:
        """Egress, which comes on top of the rent."""
        return self.egress_usd_per_gb / BYTES_PER_GB
