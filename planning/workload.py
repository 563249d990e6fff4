"""A workload as an architect describes it: frozen values, and where each figure comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from planning.ranges import RANGES, Nonsense, check_word, checked
from planning.total_cost import BILLINGS, Billing
from router.model import TensorSpec

Residency = Literal["may-leave", "redacted-only", "stays"]
Offline = Literal["not-needed", "degraded", "required"]
Origin = Literal["measured", "assumed"]

RESIDENCIES: Final[tuple[Residency, ...]] = ("may-leave", "redacted-only", "stays")
OFFLINES: Final[tuple[Offline, ...]] = ("not-needed", "degraded", "required")

BITS_PER_BYTE = 8
SECOND_IN_MS = 1000.0
MEGABIT = 1e6
SLOWEST_SHARE = 0.05
"""The inferences that a P95 does not speak of."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a figure comes from.

    Args:
        origin: Measured by this tool, or assumed.
        source: On what, by whom.
    """

    origin: Origin
    source: str


@dataclass(frozen=True, slots=True)
class CloudModel:
    """A model on a Triton server.

    Args:
        url: `grpc://host:port`.
        name: Its name there.
        version: Its version there; empty lets the server choose.
        encoded_image: The model there that takes image files; empty where there is none.
    """

    url: str
    name: str
    version: str = ""
    encoded_image: str = ""


@dataclass(frozen=True, slots=True)
class Serving:
    """What a policy file needs to know to serve the workload.

    Args:
        model: The name that applications use.
        inputs: Input tensors by name.
        outputs: Output tensors by name.
        confidence_output: The output that says how sure the model is; empty where none does.
        image: The policy file's `image` section, where image files are taken.
        edge_file: The model file on the device; empty where there is none.
        cloud: The model in the cloud, where there is one.
        data_class: What the workload's data is called.
        accept_confidence: The device's answer is final from this confidence on; None leaves all to the cloud.
        deadline_ms: Deadline of a request that names none; None is ten times the target.
        budget_per_month: What the cloud may cost a month, in the price file's currency; None is no limit.
    """

    model: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    confidence_output: str = ""
    image: Mapping[str, Any] | None = None
    edge_file: str = ""
    cloud: CloudModel | None = None
    data_class: str = "workload"
    accept_confidence: float | None = None
    deadline_ms: float | None = None
    budget_per_month: float | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked, of what, within what. `planning.ranges` has what is sensible for each figure.

    Args:
        name: What it is called.
        p95_target_ms: End to end, what 95 % of requests must stay within.
        edge_p95_ms: What the device takes, end to end on its LAN.
        cloud_compute_p95_ms: What the cloud's model takes, network apart.
        round_trip_ms: To the cloud and back.
        uplink_mbit_per_second: What the site can send.
        size_mb: The model, quantised as it would be deployed.
        memory_mb: What it takes on the device when it runs.
        device_memory_mb: What a device has for it.
        parameters_billion: Of a language model; 0 for any other.
        vram_gb: What the model takes on a GPU.
        rate_per_second: Inferences a second, all sites together, averaged over the month.
        concurrent: Requests at once at the peak, all sites together.
        sites: Places that need a device each.
        device_per_second: What one device does at full load.
        node_per_second: What one node does at full load, batched.
        device_utilisation: Share of that it may be used for on average.
        node_utilisation: The same for a node.
        node: The price file's name of the node.
        billing: How nodes are paid.
        residency: Whether the data may leave the site, only redacted, or not at all.
        local_audit: Whether the site must be able to audit every decision by itself.
        offline: What is needed while the WAN is down: nothing, a degraded service, or all of it.
        updates_per_month: How often the model changes.
        payload_bytes: What one inference sends to the cloud, if all of it is sent.
        device_part: What the device does in a split; empty where there is nothing to do there.
        device_part_p95_ms: What that takes, end to end on the LAN.
        device_part_per_second: What one device does of it at full load.
        forwarded_share: Share of inferences that a split still sends to the cloud.
        forwarded_bytes: What it sends of each of those.
        serving: What a policy file needs; None where none is wanted.
        provenance: Where figures come from, by field. One that is not there is assumed.

    Raises:
        Nonsense: A figure is not sensible, or a word not known.
    """

    name: str
    p95_target_ms: float
    edge_p95_ms: float
    cloud_compute_p95_ms: float
    round_trip_ms: float
    uplink_mbit_per_second: float
    size_mb: float
    memory_mb: float
    device_memory_mb: float
    parameters_billion: float
    vram_gb: float
    rate_per_second: float
    concurrent: float
    sites: int
    device_per_second: float
    node_per_second: float
    device_utilisation: float
    node_utilisation: float
    node: str
    billing: Billing
    residency: Residency
    local_audit: bool
    offline: Offline
    updates_per_month: float
    payload_bytes: float
    device_part_p95_ms: float
    device_part_per_second: float
    device_part: str = ""
    forwarded_share: float = 1.0
    forwarded_bytes: float = 0.0
    serving: Serving | None = None
    provenance: Mapping[str, Provenance] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in FIGURES:
            checked(name, getattr(self, name))
        for name in ("name", "node", "device_part"):
            if not isinstance(getattr(self, name), str):
                raise Nonsense(name, f"must be text, not {getattr(self, name)!r}")
        if not isinstance(self.local_audit, bool):
            raise Nonsense("local_audit", f"must be true or false, not {self.local_audit!r}")
        check_word("billing", self.billing, BILLINGS)
        check_word("residency", self.residency, RESIDENCIES)
        check_word("offline", self.offline, OFFLINES)

    def is_measured(self, name: str) -> bool:
        """Whether this tool measured a figure."""
        return name in self.provenance and self.provenance[name].origin == "measured"

    @property
    def concurrent_at_a_site(self) -> float:
        """Requests at once at the peak at one of the sites, which is what a device there has to answer."""
        return self.concurrent / self.sites

    def cloud_p95_ms(self, sent_bytes: float) -> float:
        """What an answer of the cloud takes, end to end: round trip, the payload on the uplink, and compute."""
        transfer = sent_bytes * BITS_PER_BYTE / (self.uplink_mbit_per_second * MEGABIT) * SECOND_IN_MS
        return self.round_trip_ms + transfer + self.cloud_compute_p95_ms

    @property
    def split_p95_ms(self) -> float:
        """What a split takes: the device's part, and the cloud's on top unless no more than one in twenty go there."""
        if self.forwarded_share <= SLOWEST_SHARE:
            return self.device_part_p95_ms
        return self.device_part_p95_ms + self.cloud_p95_ms(self.forwarded_bytes)


FIGURES: Final = tuple(one.name for one in fields(Workload) if one.name in RANGES)
"""The fields that are figures, and have a range."""
