"""The total cost of ownership of devices and of rented nodes. Pure arithmetic on quantities that know their unit.

Invariants:

- A month has 30 days, and what is paid by the year is paid in twelfths.
- Devices are owned whole: at least one for each site, and enough that none is used for more than its utilisation.
- Nodes are billed *by use*, for the time that they are busy, or *always on*, whole and around the clock. The published
  figure for the cloud ($2 an hour at 200/s are $2.78 per million) is by use, at full utilisation.
- Every field may be an array, as long as they broadcast; so may then every result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from planning.units import (
    BYTE,
    GIGABYTE,
    HOUR,
    INFERENCE,
    KILOWATT_HOUR,
    MILLION,
    MONEY,
    MONTH,
    SECOND,
    WATT,
    YEAR,
    Amount,
    Quantity,
)

Billing = Literal["by-use", "always-on"]
BILLINGS: Final[tuple[Billing, ...]] = ("by-use", "always-on")

PER_SECOND: Final = INFERENCE / SECOND
MONEY_PER_MONTH: Final = MONEY / MONTH

ALMOST_WHOLE = 1e-9
"""A load that exceeds what n machines do by less than this share is rounding, and needs no further machine."""


@dataclass(frozen=True, slots=True)
class CostInputs:
    """All that the cost depends on; money in one currency. `planning.ranges` has what is sensible for each.

    Args:
        hardware: Purchase price of a device.
        lifetime_years: Years over which it is written off.
        watts: Mean power that it draws, around the clock.
        operations_per_year: Updates, monitoring and visits for one device.
        spares: Devices on the shelf for each one in use.
        per_kwh: Price of a kilowatt-hour.
        device_per_second: Inferences a second that a device does at full load.
        device_utilisation: Share of that it is planned to do on average.
        sites: Places that need a device, however little they ask.
        per_hour: Rent of a node.
        node_per_second: Inferences a second that a node does at full load, batched.
        node_utilisation: Share of that it is planned to do on average.
        per_gb: Price of a gigabyte sent to the cloud.
        bytes_out: Bytes that each inference in the cloud sends there.
        rate_per_second: Inferences a second, all sites together, averaged over the month.
    """

    hardware: Amount
    lifetime_years: Amount
    watts: Amount
    operations_per_year: Amount
    spares: Amount
    per_kwh: Amount
    device_per_second: Amount
    device_utilisation: Amount
    sites: Amount
    per_hour: Amount
    node_per_second: Amount
    node_utilisation: Amount
    per_gb: Amount
    bytes_out: Amount
    rate_per_second: Amount


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of inferring costs.

    Args:
        parts: Money a month, by what it is spent on.
        machines: Devices, or nodes; a fraction where they are billed by use.
        rate: Inferences for each time.
    """

    parts: Mapping[str, Quantity]
    machines: Amount
    rate: Quantity

    @property
    def per_month(self) -> Amount:
        """Money a month, all parts."""
        return _total(self.parts).to(MONEY_PER_MONTH)

    @property
    def per_million(self) -> Amount:
        """Money for a million inferences, at the rate."""
        return (_total(self.parts) / self.rate).to(MONEY / MILLION)

    def parts_per_month(self) -> dict[str, Amount]:
        """Money a month, by what it is spent on."""
        return {name: part.to(MONEY_PER_MONTH) for name, part in self.parts.items()}


def _total(parts: Mapping[str, Quantity]) -> Quantity:
    first, *others = parts.values()
    for part in others:
        first = first + part
    return first


def edge_cost(inputs: CostInputs) -> Cost:
    """What devices cost that answer all of it."""
    rate = inputs.rate_per_second * PER_SECOND
    capacity = inputs.device_per_second * inputs.device_utilisation * PER_SECOND
    devices = np.maximum(inputs.sites, machines_for(rate, capacity))
    write_off = inputs.hardware * MONEY / (inputs.lifetime_years * YEAR)
    power = inputs.watts * WATT * (inputs.per_kwh * MONEY / KILOWATT_HOUR)
    parts = {
        "hardware": devices * write_off,
        "spares": devices * inputs.spares * write_off,
        "power": devices * power,
        "operations": devices * inputs.operations_per_year * MONEY / YEAR,
    }
    return Cost(parts, devices, rate)


def cloud_cost(inputs: CostInputs, billing: Billing) -> Cost:
    """What nodes cost that answer all of it."""
    rate = inputs.rate_per_second * PER_SECOND
    capacity = inputs.node_per_second * inputs.node_utilisation * PER_SECOND
    nodes = (rate / capacity).number() if billing == "by-use" else machines_for(rate, capacity)
    parts = {
        "rent": nodes * (inputs.per_hour * MONEY / HOUR),
        "egress": rate * (inputs.bytes_out * BYTE / INFERENCE) * (inputs.per_gb * MONEY / GIGABYTE),
    }
    return Cost(parts, nodes, rate)


def machines_for(rate: Quantity, capacity: Quantity) -> Amount:
    """How many whole machines it takes; at least one."""
    needed: Amount = np.maximum(1.0, np.ceil((rate / capacity).number() - ALMOST_WHOLE))
    return needed
