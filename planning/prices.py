"""What devices, nodes, electricity and egress cost, in one currency, on one day, and who says so."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One price or property.

    Args:
        likely: What to count with.
        low: The least that it may turn out.
        high: The most that it may turn out.
    """

    likely: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What one device costs and does; money in the file's currency.

    Args:
        name: What it is.
        hardware: Purchase price.
        lifetime_years: Years over which it is written off.
        watts: Mean power drawn, around the clock.
        operations_per_year: Updates, monitoring, visits.
        spares: Devices on the shelf for each one in use.
        inferences_per_second: What it does at full load.
        counted_per_month: The inferences a month that the reference counts for it.
        source: Who says so.
    """

    name: str
    hardware: Figure
    lifetime_years: Figure
    watts: Figure
    operations_per_year: Figure
    spares: Figure
    inferences_per_second: Figure
    counted_per_month: float
    source: str


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """What one rented node costs and does.

    Args:
        per_hour: Rent.
        inferences_per_second: What it does at full load, batched.
        source: Who says so.
    """

    per_hour: Figure
    inferences_per_second: Figure
    source: str


@dataclass(frozen=True, slots=True)
class Prices:
    """A price file's content.

    Args:
        dated: The day on which the prices were true.
        currency: ISO 4217 code of all amounts.
        usd_per_unit: What one unit of it is in US dollars.
        per_kwh: Price of electricity.
        per_gb: Price of a gigabyte (10^9 bytes) sent to the cloud.
        device: The device.
        nodes: Nodes by name.
        sources: Who says what electricity and egress cost.
    """

    dated: datetime.date
    currency: str
    usd_per_unit: float
    per_kwh: Figure
    per_gb: Figure
    device: DeviceFigures
    nodes: Mapping[str, NodeFigures]
    sources: Mapping[str, str]
