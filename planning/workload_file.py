"""Reads workload files. What a file leaves out is assumed, and is marked so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from planning.assumptions import make_workload
from planning.sections import Section, opened, validated
from planning.total_cost import Billing
from planning.workload import CloudModel, Offline, Residency, Serving, Workload
from policies.schema import ImageSection, TensorSection
from policies.schema import Name as PolicyName
from router.model import TensorSpec


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
