"""Reads price files."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from planning.prices import DeviceFigures, Figure, NodeFigures, Prices
from planning.ranges import RANGES
from planning.sections import FigureSection, Section, opened, validated

DEFAULT_PRICES = Path(__file__).with_name("prices.yaml")

Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class _Electricity(Section):
    per_kwh: FigureSection
    source: Word


class _Egress(Section):
    per_gb: FigureSection
    source: Word


class _Device(Section):
    name: Word
    hardware: FigureSection
    lifetime_years: FigureSection
    watts: FigureSection
    operations_per_year: FigureSection
    spares: FigureSection
    inferences_per_second: FigureSection
    counted_per_month: float
    source: Word


class _Node(Section):
    per_hour: FigureSection
    inferences_per_second: FigureSection
    source: Word


class _PriceFile(Section):
    version: Literal[1]
    dated: datetime.date
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    usd_per_unit: float
    spread: float
    electricity: _Electricity
    egress: _Egress
    device: _Device
    nodes: Annotated[dict[Name, _Node], Field(min_length=1)]


def load_prices(content: bytes, source: str = "price file") -> Prices:
    """Reads a price file, whole or not at all.

    Args:
        content: The file's bytes.
        source: How it is called in errors.

    Raises:
        UnusableFile: With every problem that was found.
    """
    file: _PriceFile = validated(_PriceFile, opened(content, source))
    figure = _figures(file.spread)
    device = file.device
    return Prices(
        dated=file.dated,
        currency=file.currency,
        usd_per_unit=file.usd_per_unit,
        per_kwh=figure("per_kwh", file.electricity.per_kwh),
        per_gb=figure("per_gb", file.egress.per_gb),
        device=DeviceFigures(
            name=device.name,
            hardware=figure("hardware", device.hardware),
            lifetime_years=figure("lifetime_years", device.lifetime_years),
            watts=figure("watts", device.watts),
            operations_per_year=figure("operations_per_year", device.operations_per_year),
            spares=figure("spares", device.spares),
            inferences_per_second=figure("inferences_per_second", device.inferences_per_second),
            counted_per_month=device.counted_per_month,
            source=device.source,
        ),
        nodes={
            name: NodeFigures(
                figure("per_hour", node.per_hour),
                figure("inferences_per_second", node.inferences_per_second),
                node.source,
            )
            for name, node in file.nodes.items()
        },
        sources={"electricity": file.electricity.source, "egress": file.egress.source},
    )


def _figures(spread: float) -> Callable[[str, FigureSection], Figure]:
    def figure(field: str, section: FigureSection) -> Figure:
        low = section.likely * (1 - spread) if section.low is None else section.low
        high = section.likely * (1 + spread) if section.high is None else section.high
        return Figure(section.likely, low, min(high, RANGES[field].high))

    return figure


@cache
def default_prices() -> Prices:
    """The prices that come with the package."""
    return load_prices(DEFAULT_PRICES.read_bytes(), DEFAULT_PRICES.name)
