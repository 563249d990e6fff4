"""What a million inferences cost on each kind of machine, where edge and cloud break even, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planning.break_even import BreakEven, break_evens
from planning.plain import as_plain
from planning.price_file import default_prices
from planning.prices import Figure, Prices
from planning.ranges import Nonsense, check_word, checked
from planning.total_cost import BILLINGS, Billing, Cost, CostInputs, cloud_cost, edge_cost
from planning.uncertainty import SAMPLES, Spread, Swing, likely, monte_carlo, tornado
from planning.units import INFERENCE, MONTH, SECOND

DEVICE = "device"
PER_MONTH_IN_A_SECOND = float((INFERENCE / SECOND).to(INFERENCE / MONTH))
CURVE_POINTS = 121
RATE_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of the machines, and how well they are used.

    Args:
        rate_per_second: Inferences a second, all sites together, averaged over the month; None: the price file's count.
        device_utilisation: Share of a device's throughput that may be used on average.
        node_utilisation: The same for a node.
        sites: Places that need a device each.
        bytes_out: Bytes that an inference in the cloud sends there.
        billing: How nodes are paid.
        against: The node that the edge is held against.
        device_per_second: What a device does at full load; None is the price file's figure.
        node_per_second: The same for a node.

    Raises:
        Nonsense: A figure is not sensible, or a word not known.
    """

    rate_per_second: float | None = None
    device_utilisation: float = 1.0
    node_utilisation: float = 1.0
    sites: int = 1
    bytes_out: float = 0.0
    billing: Billing = "by-use"
    against: str = "reference"
    device_per_second: float | None = None
    node_per_second: float | None = None

    def __post_init__(self) -> None:
        for name in ("device_utilisation", "node_utilisation", "sites", "bytes_out"):
            checked(name, getattr(self, name))
        for name in ("rate_per_second", "device_per_second", "node_per_second"):
            if getattr(self, name) is not None:
                checked(name, getattr(self, name))
        check_word("billing", self.billing, BILLINGS)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one machine costs per million, at one utilisation.

    Args:
        machine: `device`, or a node's name.
        utilisation: Share of its throughput that is used.
        per_month: Inferences that it makes a month.
        money_per_month: What it costs a month, egress apart.
        money_per_million: The same for a million inferences.
    """

    machine: str
    utilisation: float
    per_month: float
    money_per_month: float
    money_per_million: float


@dataclass(frozen=True, slots=True)
class Option:
    """What the demand costs on one kind of machine.

    Args:
        machine: `device`, or a node's name.
        machines: How many; a fraction where they are paid by use.
        per_month: Money a month.
        per_million: Money for a million inferences.
        parts: Money a month, by what it is spent on.
        source: Who says what it costs.
    """

    machine: str
    machines: float
    per_month: float
    per_million: float
    parts: Mapping[str, float]
    source: str


@dataclass(frozen=True, slots=True)
class Curves:
    """Money for a million inferences over the rate, by machine.

    Args:
        rates_per_second: Inferences a second.
        per_million: For each machine, money at each rate.
    """

    rates_per_second: tuple[float, ...]
    per_million: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Tco:
    """The whole answer. `as_json` gives it as plain values, for pipelines and reports.

    Args:
        currency: Of every amount.
        dated: The day of the prices.
        device_name: What the device is.
        demand: What was asked, with nothing left open.
        readings: Each machine by itself: the device as the reference counts it and fully used, and each node.
        options: The demand on each kind of machine, the device first.
        break_evens: For each node the rates at which edge and cloud change places.
        curves: Money per million over the rate.
        tornado: Sensitivity to each input, the widest swing first, against the node that the demand names.
        spread: Monte Carlo, against the same.
    """

    currency: str
    dated: str
    device_name: str
    demand: Demand
    readings: tuple[Reading, ...]
    options: tuple[Option, ...]
    break_evens: Mapping[str, tuple[BreakEven, ...]]
    curves: Curves
    tornado: tuple[Swing, ...]
    spread: Spread

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = as_plain(self)
        return plain


def tco(prices: Prices | None = None, demand: Demand | None = None, seed: int = 0, samples: int = SAMPLES) -> Tco:
    """What a demand costs on devices and on each kind of node.

    Args:
        prices: The price file; the one that comes with the package where it is None.
        demand: What is asked; the reference's count of a month on one device where it is None.
        seed: Of the Monte Carlo draws.
        samples: How many draws.

    Raises:
        Nonsense: A figure is not sensible, or names a node that the price file does not have.
    """
    checked("seed", seed)
    checked("samples", samples)
    prices = prices or default_prices()
    demand = _settled(demand or Demand(), prices)
    if demand.against not in prices.nodes:
        raise Nonsense("against", f"there is no node {demand.against!r}; there are {', '.join(prices.nodes)}")
    figures = {name: cost_figures(prices, demand, name) for name in prices.nodes}
    inputs = {name: likely(figures[name]) for name in prices.nodes}
    compared = inputs[demand.against]
    rate = float(compared.rate_per_second)
    up_to = 10 * max(rate, float(compared.device_per_second), float(compared.node_per_second))
    return Tco(
        currency=prices.currency,
        dated=prices.dated.isoformat(),
        device_name=prices.device.name,
        demand=demand,
        readings=_readings(prices, inputs),
        options=(
            _option(DEVICE, edge_cost(compared), prices.device.source),
            *(
                _option(name, cloud_cost(inputs[name], demand.billing), node.source)
                for name, node in prices.nodes.items()
            ),
        ),
        break_evens={name: break_evens(inputs[name], demand.billing, up_to) for name in prices.nodes},
        curves=_curves(inputs, compared, demand.billing, up_to),
        tornado=tornado(figures[demand.against], demand.billing),
        spread=monte_carlo(figures[demand.against], demand.billing, int(seed), int(samples)),
    )


def cost_figures(prices: Prices, demand: Demand, node: str) -> dict[str, Figure]:
    """Every input of the cost and between what it may lie, for one kind of node."""
    device, rented = prices.device, prices.nodes[node]
    rate = demand.rate_per_second or device.counted_per_month / PER_MONTH_IN_A_SECOND
    return {
        "hardware": device.hardware,
        "lifetime_years": device.lifetime_years,
        "watts": device.watts,
        "operations_per_year": device.operations_per_year,
        "spares": device.spares,
        "per_kwh": prices.per_kwh,
        "device_per_second": _around(demand.device_per_second, device.inferences_per_second),
        "device_utilisation": _share(demand.device_utilisation),
        "sites": Figure(demand.sites, demand.sites, demand.sites),
        "per_hour": rented.per_hour,
        "node_per_second": _around(demand.node_per_second, rented.inferences_per_second),
        "node_utilisation": _share(demand.node_utilisation),
        "per_gb": prices.per_gb,
        "bytes_out": Figure(demand.bytes_out, demand.bytes_out / 2, demand.bytes_out * 2),
        "rate_per_second": Figure(rate, rate * (1 - RATE_SPREAD), rate * (1 + RATE_SPREAD)),
    }


def _settled(demand: Demand, prices: Prices) -> Demand:
    if demand.rate_per_second is not None:
        return demand
    return replace(demand, rate_per_second=prices.device.counted_per_month / PER_MONTH_IN_A_SECOND)


def _around(given: float | None, figure: Figure) -> Figure:
    """The price file's uncertainty, in proportion, around what was given."""
    if given is None:
        return figure
    return Figure(given, given * figure.low / figure.likely, given * figure.high / figure.likely)


def _share(share: float) -> Figure:
    """A utilisation may turn out half of what was planned; more than planned would need more machines."""
    return Figure(share, share / 2, share)


def _readings(prices: Prices, inputs: Mapping[str, CostInputs]) -> tuple[Reading, ...]:
    found = []
    first = next(iter(inputs.values()))
    counted = prices.device.counted_per_month / PER_MONTH_IN_A_SECOND
    for rate in (counted, float(first.device_per_second)):
        cost = edge_cost(replace(first, rate_per_second=rate, device_utilisation=1.0, sites=1))
        share = rate / float(first.device_per_second) / float(cost.machines)
        found.append(_reading(DEVICE, share, cost, rate))
    for name, node in inputs.items():
        for share in sorted({float(node.node_utilisation), 1.0}):
            rate = float(node.node_per_second) * share
            cost = cloud_cost(replace(node, rate_per_second=rate, node_utilisation=share, bytes_out=0.0), "by-use")
            found.append(_reading(name, share, cost, rate))
    return tuple(found)


def _reading(machine: str, share: float, cost: Cost, rate: float) -> Reading:
    return Reading(machine, share, rate * PER_MONTH_IN_A_SECOND, float(cost.per_month), float(cost.per_million))


def _option(machine: str, cost: Cost, source: str) -> Option:
    parts = {name: float(part) for name, part in cost.parts_per_month().items()}
    return Option(machine, float(cost.machines), float(cost.per_month), float(cost.per_million), parts, source)


def _curves(inputs: Mapping[str, CostInputs], compared: CostInputs, billing: Billing, up_to: float) -> Curves:
    rates = np.geomspace(min(0.01, float(compared.rate_per_second) / 10), up_to, CURVE_POINTS)
    lines = {DEVICE: edge_cost(replace(compared, rate_per_second=rates)).per_million}
    for name, node in inputs.items():
        lines[name] = cloud_cost(replace(node, rate_per_second=rates), billing).per_million
    return Curves(
        tuple(map(float, rates)),
        {name: tuple(map(float, np.broadcast_to(line, CURVE_POINTS))) for name, line in lines.items()},
    )
