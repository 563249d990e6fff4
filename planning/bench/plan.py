"""What a benchmark measures, as values. Pure.

Invariants:

- A plan says everything that a measurement depends on but the machine: two results of equal plans can be compared.
- Nothing but this machine is asked, unless a URL in the plan says so.
- Rounds are interleaved: a machine that is slow for a while is slow for every cell, not for one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Alone = Literal["edge", "cloud"]
Arrivals = Literal["even", "random"]

MODEL = "benchmark"
"""The model's name on gateways and servers of our own."""


@dataclass(frozen=True, slots=True)
class Model:
    """The model under benchmark: a file, or one made on the spot.

    Args:
        file: An ONNX file; empty for a made one.
        made_mb: Size of a made one.
        image_side: Height and width of its input.
        payload: A file with the inputs, JSON or .npz; empty for seeded noise of the model's least size.
        name: What a live gateway calls it.
        confidence_output: The output that says how sure it is, for cascades; empty where none does.
    """

    file: str = ""
    made_mb: float = 0.0
    image_side: int = 0
    payload: str = ""
    name: str = MODEL
    confidence_output: str = ""


@dataclass(frozen=True, slots=True)
class OwnCloud:
    """A Triton of the user's own, asked instead of one on this machine."""

    url: str
    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who answers. Exactly one of `alone`, `policy` and `gateway` is given.

    Args:
        name: Its name in results.
        alone: The one backend that the gateway has.
        policy: A policy as a policy file has it; the gateway has both backends.
        gateway: The URL of a live gateway, asked as it is.
    """

    name: str
    alone: Alone | None = None
    policy: Mapping[str, Any] | None = None
    gateway: str = ""

    @property
    def crosses_line(self) -> bool:
        """Whether it may ask a cloud over the line that we hold."""
        return self.alone != "edge" and not self.gateway


@dataclass(frozen=True, slots=True)
class Network:
    """The line between gateway and cloud.

    Args:
        rtt_ms: What it adds to each round trip.
        up_mbit_per_second: Its throughput towards the cloud; None for no limit.
    """

    rtt_ms: float
    up_mbit_per_second: float | None = None

    def __str__(self) -> str:
        limit = "" if self.up_mbit_per_second is None else f" {self.up_mbit_per_second:g} Mbit/s"
        return f"{self.rtt_ms:g} ms{limit}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """An open-loop load.

    Args:
        name: Its name in results.
        per_second: Mean rate.
        seconds: For how long, the warm-up apart.
        burst: How many requests are due at once.
        arrivals: Whether the moments are even, or random as independent users make them.
        subjects: The names of the only subjects that it is put to; empty for all.
    """

    name: str
    per_second: float
    seconds: float
    burst: int = 1
    arrivals: Arrivals = "even"
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole benchmark.

    Args:
        name: What it is called.
        seed: Of made weights, made inputs and random arrivals.
        rounds: How often each cell is measured.
        warm_up_s: Load before each measurement that is not counted.
        deadline_ms: What requests allow the gateway.
        p95_target_ms: The SLO that policies see.
        model: What is asked for.
        cloud: A Triton of the user's own; None for one on this machine.
        node: The node of the price file that the cloud is priced as.
        prices: A price file; empty for the one that comes with this software.
        device_utilisation: Share of what the device can do that it is priced as doing, around the clock.
        node_utilisation: The same for the node.
        subjects: Who is asked.
        networks: Under which conditions, where the line matters.
        scenarios: With which loads.
    """

    name: str
    seed: int
    rounds: int
    warm_up_s: float
    deadline_ms: float
    p95_target_ms: float
    model: Model
    cloud: OwnCloud | None
    node: str
    prices: str
    device_utilisation: float
    node_utilisation: float
    subjects: tuple[Subject, ...]
    networks: tuple[Network, ...]
    scenarios: tuple[Scenario, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One subject under one load and, where the line matters, one network."""

    subject: Subject
    network: Network | None
    scenario: Scenario

    @property
    def key(self) -> str:
        """What tells it from the other cells of its plan."""
        return f"{self.subject.name} | {self.network or 'no line'} | {self.scenario.name}"


def cells(plan: Plan) -> tuple[Cell, ...]:
    """What is measured. Who crosses no line is not measured again for each network."""
    return tuple(
        Cell(subject, network, scenario)
        for scenario in plan.scenarios
        for subject in plan.subjects
        if not scenario.subjects or subject.name in scenario.subjects
        for network in (plan.networks if subject.crosses_line else (None,))
    )


def runs(plan: Plan) -> Iterator[tuple[int, Cell]]:
    """Round and cell of every measurement, in the order in which they are made."""
    for number in range(plan.rounds):
        for cell in cells(plan):
            yield number, cell


def arrival_seed(plan: Plan, cell: Cell, number: int) -> int:
    """The seed of a round's arrivals: the same for all subjects and networks, so that they face the same load."""
    return zlib.crc32(f"{plan.seed} {number} {cell.scenario.name}".encode())
