"""Reads benchmark plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from planning.assumptions import ASSUMED
from planning.bench.plan import MODEL, Model, Network, OwnCloud, Plan, Scenario, Subject
from planning.sections import Section, opened, validated

PLANS = Path(__file__).with_name("plans")

Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
LEAST_REQUESTS = 10


class _Made(Section):
    made_mb: float
    image_side: int


class _Model(Section):
    file: Word | None = None
    make: _Made | None = None
    payload: Word | None = None
    name: Word = MODEL
    confidence_output: str = ""

    @model_validator(mode="after")
    def _one(self) -> _Model:
        if (self.file is None) is (self.make is None):
            raise ValueError("needs either `file`, a model of yours, or `make`, one made on the spot")
        return self


class _Cloud(Section):
    url: Word
    name: Word
    version: str = ""

    @field_validator("url")
    @classmethod
    def _is_grpc(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("grpc", "grpcs") or not _has_port(url):
            raise ValueError("must look like grpc://host:8001, or grpcs://host:8001 for TLS")
        return url


class _Subject(Section):
    alone: Literal["edge", "cloud"] | None = None
    policy: dict[str, Any] | None = None
    gateway: str | None = None

    @model_validator(mode="after")
    def _one(self) -> _Subject:
        if sum(given is not None for given in (self.alone, self.policy, self.gateway)) != 1:
            raise ValueError("needs exactly one of `alone` (edge or cloud), `policy` and `gateway` (a URL)")
        if self.gateway is not None and urlsplit(self.gateway).scheme not in ("http", "https"):
            raise ValueError("gateway must look like http://host:8080")
        return self


class _Network(Section):
    rtt_ms: float
    up_mbit_per_second: float | None = None


class _Scenario(Section):
    per_second: float
    seconds: float
    burst: int = 1
    arrivals: Literal["even", "random"] = "even"
    subjects: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _enough(self) -> _Scenario:
        if self.per_second * self.seconds < LEAST_REQUESTS:
            raise ValueError(f"per_second x seconds must be at least {LEAST_REQUESTS} requests")
        return self


class _PlanFile(Section):
    version: Literal[1]
    name: Word
    seed: int = 1
    rounds: int = 1
    warm_up_s: float = 2.0
    deadline_ms: float = 1000.0
    p95_target_ms: float = 100.0
    model: _Model
    cloud: _Cloud | None = None
    node: Word = "reference"
    prices: str = ""
    device_utilisation: float = ASSUMED["device_utilisation"][0]
    node_utilisation: float = ASSUMED["node_utilisation"][0]
    subjects: dict[Name, _Subject] = Field(min_length=1)
    networks: tuple[_Network, ...] = Field(default=(_Network(rtt_ms=0.0),), min_length=1)
    scenarios: dict[Name, _Scenario] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> _PlanFile:
        for name, scenario in self.scenarios.items():
            if unknown := set(scenario.subjects) - set(self.subjects):
                raise ValueError(f"scenarios.{name}.subjects names {', '.join(sorted(unknown))}, which is no subject")
        if len(set(map(repr, self.networks))) < len(self.networks):
            raise ValueError("networks has the same conditions twice")
        tls = self.cloud is not None and self.cloud.url.startswith("grpcs:")
        if tls and [network.model_dump() for network in self.networks] != [{"rtt_ms": 0.0, "up_mbit_per_second": None}]:
            raise ValueError("networks must be left out with a grpcs cloud: a relay cannot stand in a TLS connection")
        return self


def load_plan(content: bytes, source: str = "benchmark plan", folder: Path = Path()) -> Plan:
    """Reads a plan, whole or not at all.

    Args:
        content: The file's bytes.
        source: How it is called in errors.
        folder: What the plan's paths are relative to.

    Raises:
        UnusableFile: With every problem that was found.
    """
    file: _PlanFile = validated(_PlanFile, opened(content, source))
    return Plan(
        name=file.name,
        seed=file.seed,
        rounds=file.rounds,
        warm_up_s=file.warm_up_s,
        deadline_ms=file.deadline_ms,
        p95_target_ms=file.p95_target_ms,
        model=_model(file.model, folder),
        cloud=None if file.cloud is None else OwnCloud(**file.cloud.model_dump()),
        node=file.node,
        prices=_path(file.prices, folder),
        device_utilisation=file.device_utilisation,
        node_utilisation=file.node_utilisation,
        subjects=tuple(_subject(name, section) for name, section in file.subjects.items()),
        networks=tuple(Network(**section.model_dump()) for section in file.networks),
        scenarios=tuple(Scenario(name, **section.model_dump()) for name, section in file.scenarios.items()),
    )


def _model(section: _Model, folder: Path) -> Model:
    model = Model(
        file=_path(section.file, folder),
        payload=_path(section.payload, folder),
        name=section.name,
        confidence_output=section.confidence_output,
    )
    if section.make is None:
        return model
    return replace(model, made_mb=section.make.made_mb, image_side=section.make.image_side)


def _subject(name: str, section: _Subject) -> Subject:
    policy: Mapping[str, Any] | None = section.policy
    return Subject(name, section.alone, policy, (section.gateway or "").rstrip("/"))


def _path(given: str | None, folder: Path) -> str:
    return str(folder / given) if given else ""


def _has_port(url: str) -> bool:
    try:
        return urlsplit(url).port is not None
    except ValueError:
        return False
