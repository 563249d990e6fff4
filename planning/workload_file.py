"""Reads workload files. What a file leaves out is assumed, and is marked so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from planning.sections import Section, opened, validated
from planning.total_cost import Billing
from planning.workload import CloudModel, Offline, Provenance, Residency, Serving, Workload
from policies.schema import ImageSection, TensorSection
from policies.schema import Name as PolicyName
from router.model import TensorSpec

Text = Annotated[str, StringConstraints(max_length=200)]

ASSUMED: Final[Mapping[str, tuple[float, str]]] = {
    "edge_p95_ms": (40.0, "reference figure: vision on a Pi 5 with HAT takes 25 to 40 ms end to end on a LAN"),
    "cloud_compute_p95_ms": (10.0, "a common figure for a batched vision model on a GPU; measure yours"),
    "round_trip_ms": (50.0, "the middle of the benchmark plan's 0 to 200 ms"),
    "uplink_mbit_per_second": (20.0, "a common business line"),
    "device_memory_mb": (8000.0, "a Raspberry Pi 5 with 8 GB"),
    "parameters_billion": (0.0, "not a language model"),
    "vram_gb": (0.0, "fits any GPU"),
    "concurrent": (1.0, "one request at a time"),
    "sites": (1, "one site"),
    "device_per_second": (25.0, "reference figure: 40 ms an inference"),
    "node_per_second": (200.0, "reference figure: a GPU node with batching"),
    "device_utilisation": (0.7, "some room for peaks"),
    "node_utilisation": (0.7, "some room for peaks"),
    "updates_per_month": (1.0, "one a month"),
    "forwarded_share": (1.0, "everything is forwarded"),
}
"""What is assumed of what nobody said, and why. `DERIVED` has the rest."""

DERIVED: Final[Mapping[str, tuple[str, float, str]]] = {
    "memory_mb": ("size_mb", 2.0, "twice the model's size"),
    "device_part_p95_ms": ("edge_p95_ms", 1.0, "as long as the whole model"),
    "device_part_per_second": ("device_per_second", 1.0, "as many as of the whole model"),
    "forwarded_bytes": ("payload_bytes", 1.0, "the whole payload"),
}
"""What is assumed in proportion to another field."""


class _Latency(Section):
    p95_target_ms: float
    edge_p95_ms: float | None = None
    cloud_compute_p95_ms: float | None = None
    round_trip_ms: float | None = None
    uplink_mbit_per_second: float | None = None


class _Model(Section):
    size_mb: float
    memory_mb: float | None = None
    device_memory_mb: float | None = None
    parameters_billion: float | None = None
    vram_gb: float | None = None


class _Traffic(Section):
    rate_per_second: float
    payload_bytes: float
    concurrent: float | None = None
    sites: int | None = None
    device_per_second: float | None = None
    node_per_second: float | None = None
    device_utilisation: float | None = None
    node_utilisation: float | None = None


class _Compliance(Section):
    residency: Residency
    local_audit: bool = False


class _Operations(Section):
    updates_per_month: float | None = None
    offline: Offline = "not-needed"
    node: str = "reference"
    billing: Billing = "by-use"


class _Split(Section):
    device_part: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    device_part_p95_ms: float | None = None
    device_part_per_second: float | None = None
    forwarded_share: float | None = None
    forwarded_bytes: float | None = None


class _Cloud(Section):
    url: str
    name: str
    version: str = ""
    encoded_image: str = ""


class _Serving(Section):
    model: PolicyName
    inputs: dict[PolicyName, TensorSection] = Field(min_length=1)
    outputs: dict[PolicyName, TensorSection] = Field(min_length=1)
    confidence_output: str = ""
    image: ImageSection | None = None
    edge_file: str = ""
    cloud: _Cloud | None = None
    data_class: PolicyName = "workload"
    accept_confidence: Annotated[float, Field(gt=0, le=1)] | None = None
    deadline_ms: float | None = None
    budget_per_month: float | None = None


class _WorkloadFile(Section):
    version: Literal[1]
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    description: str = ""
    latency: _Latency
    model: _Model
    traffic: _Traffic
    compliance: _Compliance
    operations: _Operations = _Operations()
    split: _Split | None = None
    serving: _Serving | None = None


def load_workload(content: bytes, source: str = "workload file") -> Workload:
    """Reads a workload file, whole or not at all.

    Args:
        content: The file's bytes.
        source: How it is called in errors.

    Raises:
        UnusableFile: With every problem that was found.
    """
    file: _WorkloadFile = validated(_WorkloadFile, opened(content, source))
    sections = (file.latency, file.model, file.traffic, file.compliance, file.operations, file.split)
    given = {
        name: value
        for section in sections
        if section is not None
        for name, value in section.model_dump(exclude_none=True).items()
    }
    serving = None if file.serving is None else _serving(file.serving)
    return make_workload(file.name, given, source, serving)


def make_workload(name: str, given: Mapping[str, Any], source: str, serving: Serving | None = None) -> Workload:
    """A workload of what was given and, for the rest, of what is assumed.

    Args:
        name: What it is called.
        given: Values by the field of `Workload`; sensible ones.
        source: Who gave them.
        serving: What a policy file needs.
    """
    values = {field: value for field, (value, _) in ASSUMED.items()} | dict(given)
    provenance = {field: Provenance("assumed", why) for field, (_, why) in ASSUMED.items()}
    for field, (origin, factor, why) in DERIVED.items():
        if field not in given:
            values[field] = factor * values[origin]
            provenance[field] = Provenance("assumed", why)
    provenance |= {field: Provenance("assumed", source) for field in given}
    return Workload(name=name, serving=serving, provenance=provenance, **values)


def _serving(section: _Serving) -> Serving:
    return Serving(
        model=section.model,
        inputs=_tensors(section.inputs),
        outputs=_tensors(section.outputs),
        confidence_output=section.confidence_output,
        image=None if section.image is None else section.image.model_dump(mode="json"),
        edge_file=section.edge_file,
        cloud=None if section.cloud is None else CloudModel(**section.cloud.model_dump()),
        data_class=section.data_class,
        accept_confidence=section.accept_confidence,
        deadline_ms=section.deadline_ms,
        budget_per_month=section.budget_per_month,
    )


def _tensors(sections: Mapping[str, TensorSection]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(section.dtype, tuple(section.shape), section.allow_nonfinite)
        for name, section in sections.items()
    }
