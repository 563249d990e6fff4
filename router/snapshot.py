"""The snapshot: what a policy sees of the world. Immutable, rebuilt at a fixed cadence and on every state flip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.breaker import BreakerState
from router.device import DeviceView, Strain
from router.latency import LatencyPrediction
from router.model import ImageSpec
from router.types import ON_PREMISES, Facts


@dataclass(frozen=True, slots=True)
class TargetView:
    """One model on one backend, as it was when the snapshot was taken.

    Args:
        backend: The backend's name.
        model: The model's name.
        variant: Label of the model's variant there.
        site: Where the backend stands.
        takes_image: Whether an encoded image can be sent as it is.
        breaker: State of its breaker.
        problem: Why it is not available, or empty.
        retry_at: When an unavailable one is probed next, monotonic seconds.
        latency: The predicted latency, or None before the first sample.
        in_flight: Calls under way.
        waiting: Requests that wait for their turn there.
        limit: Calls that may be under way at once, as adapted to its latency.
        usd_per_inference: Dollars per row.
        usd_per_byte_out: Dollars per byte sent there.
        left_usd: What is left of the backend's budget; None where it has none.
        spent: Whether its budget forbids to ask it.
        strain: Of the device, if it runs there; NORMAL where it runs on another machine.
    """

    backend: str
    model: str
    variant: str
    site: str
    takes_image: bool
    breaker: BreakerState
    problem: str
    retry_at: float
    latency: LatencyPrediction | None
    in_flight: int
    usd_per_inference: float
    usd_per_byte_out: float
    waiting: int = 0
    limit: int = 0
    left_usd: float | None = None
    spent: bool = False
    strain: Strain = Strain.NORMAL

    @property
    def available(self) -> bool:
        """Whether a request may be sent there."""
        return self.breaker is BreakerState.CLOSED and not self.spent

    @property
    def local(self) -> bool:
        """Whether data sent there stays on the premises."""
        return self.site == ON_PREMISES


@dataclass(frozen=True, slots=True)
class ModelView:
    """What a policy may know of a model.

    Args:
        slo_p95_s: The latency its users expect of 95 % of requests, seconds.
        image: How an image is fed to it, or None.
        targets: Its targets, in the order of the policy file.
    """

    slo_p95_s: float
    image: ImageSpec | None
    targets: tuple[TargetView, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world at one instant.

    Args:
        generation: Number of the policy file in force.
        taken_at: When, monotonic seconds.
        models: By name.
        targets: By model and backend.
        sites: For each known data class, the sites where it may go.
        incumbents: Which backend stood first in the latest plan for the same facts; for policies that change their mind
            only with good reason.
        device: How the device is that this runs on.
    """

    generation: int
    taken_at: float
    models: Mapping[str, ModelView]
    targets: Mapping[tuple[str, str], TargetView]
    sites: Mapping[str, frozenset[str]]
    incumbents: Mapping[Facts, str] = field(default_factory=dict)
    device: DeviceView = field(default_factory=DeviceView)

    def candidates(self, facts: Facts) -> tuple[TargetView, ...]:
        """The targets that have the model and stand where the data may go, available or not, in file order."""
        sites = self.sites[facts.data_class]
        return tuple(target for target in self.models[facts.model].targets if target.site in sites)
