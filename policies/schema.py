"""The shape of the policy file: its sections, what each field means, and the JSON Schema for editors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from router.deployment import Shares
from router.device import DeviceLimits
from router.model import DTYPES
from router.pricing import DevicePrice, NodePrice, Price
from router.registry import BACKENDS, POLICIES, Registry, UnknownKind
from router.stages import Decode, Grayscale, Normalize, Resize

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Milliseconds = Annotated[float, Field(gt=0, le=600_000)]
Dollars = Annotated[float, Field(ge=0, le=1e9)]
Celsius = Annotated[float, Field(ge=0, le=150)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PriceSection(Section):
    """What inferences cost: a device's total cost of ownership, or a rented node."""

    device: DevicePrice | None = None
    node: NodePrice | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> PriceSection:
        if (self.device is None) == (self.node is None):
            raise ValueError("give either device or node")
        return self

    def price(self) -> Price:
        """The one that is given."""
        price = self.device or self.node
        assert price is not None
        return price


class BackendSection(Section):
    """One way to run models. Further keys are the options of its kind."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: str
    site: Name = Field(description="Where it stands. Data sent to any site but `on-premises` counts as bytes out.")
    price: PriceSection


class TensorSection(Section):
    """One tensor of a model; -1 in its shape is any size, and as the first dimension the number of rows."""

    dtype: Literal[tuple(DTYPES)]  # type: ignore[valid-type]
    shape: list[int]
    allow_nonfinite: bool = Field(False, description="Let NaN and the infinities pass.")


class SloSection(Section):
    """What a model's users expect."""

    p95_ms: Milliseconds = Field(description="Latency that 95 % of requests stay within.")
    deadline_ms: Milliseconds = Field(description="Deadline of a request that names none.")


class ImageSection(Section):
    """How an image file becomes one of the model's inputs."""

    input: str
    stages: list[Annotated[Decode | Grayscale | Resize | Normalize, Field(discriminator="stage")]] = Field(min_length=1)


class ModelSection(Section):
    """A model as applications see it, and its variant on each backend that has it."""

    version: Name = "1"
    inputs: dict[Name, TensorSection] = Field(min_length=1)
    outputs: dict[Name, TensorSection] = Field(min_length=1)
    confidence: str | None = Field(None, description="The output whose greatest value is a row's confidence.")
    slo: SloSection
    image: ImageSection | None = None
    variants: dict[Name, dict[str, Any]] = Field(min_length=1)


class PolicySection(Section):
    """A policy. Further keys are the options of its kind."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: str


class RouteSection(Section):
    """Which policy serves what; the first route that matches wins."""

    model: str = Field("*", description="A model's name, or * for any.")
    data_class: str = Field("*", description="A data class, or * for any.")
    policy: str


class ResidencySection(Section):
    """Where data of a class may go. A class that is not listed is not let in, `unclassified` apart."""

    sites: list[str] | None = Field(None, description="The only sites it may go to; without it, any.")


class BudgetSection(Section):
    """What a backend may cost. Days and months are UTC's; what was spent outlives restarts."""

    usd_per_day: Dollars | None = Field(None, description="Dollars in one day; without it, no daily limit.")
    usd_per_month: Dollars | None = Field(None, description="Dollars in one calendar month; without it, no limit.")
    when_spent: Literal["local-only", "warn"] = Field(
        "local-only", description="local-only: the backend is not asked any more; warn: a metric says so, no more."
    )

    @model_validator(mode="after")
    def _some_limit(self) -> BudgetSection:
        if self.usd_per_day is None and self.usd_per_month is None:
            raise ValueError("give usd_per_day, usd_per_month or both")
        return self


_SHARES = Shares()


class SharesSection(Section):
    """How much may be sent on top of the traffic, in requests per request."""

    hedges: Share = Field(_SHARES.hedges, description="Second attempts that start before the first has ended.")
    retries: Share = Field(_SHARES.retries, description="Second attempts on a backend that could not be reached.")
    explorations: Share = Field(
        _SHARES.explorations, description="Requests that take a plan's other order, so that estimates stay fresh."
    )


_LIMITS = DeviceLimits()


class DeviceSection(Section):
    """How warm the device may get before requests that may leave it do."""

    shift_above_c: Celsius = Field(
        _LIMITS.shift_above_c,
        description="From this temperature on requests go elsewhere, where they may and it helps.",
    )
    back_below_c: Celsius = Field(_LIMITS.back_below_c, description="Below this one they come back.")
    throttles_at_c: Celsius = Field(_LIMITS.throttles_at_c, description="From this one on it slows itself down.")

    @model_validator(mode="after")
    def _ascending(self) -> DeviceSection:
        self.limits()
        return self

    def limits(self) -> DeviceLimits:
        """The limits."""
        return DeviceLimits(**self.model_dump())


class PolicyFile(Section):
    """The policy file of a hybrid router: which backends there are, what runs where, and who decides."""

    version: Literal[1]
    backends: dict[Name, BackendSection] = Field(min_length=1)
    models: dict[Name, ModelSection] = Field(min_length=1)
    policies: dict[Name, PolicySection] = Field(min_length=1)
    routes: list[RouteSection] = Field(min_length=1)
    residency: dict[Name, ResidencySection] = Field(default_factory=dict)
    budgets: dict[Name, BudgetSection] = Field(default_factory=dict)
    shares: SharesSection = SharesSection()
    device: DeviceSection = DeviceSection()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the policy file, the options of every kind installed here included."""
    schema = PolicyFile.model_json_schema()
    definitions = schema["$defs"]
    policies, _ = _kinds(Registry(POLICIES), definitions)
    backends, variants = _kinds(Registry(BACKENDS), definitions)
    for section, kinds in (("BackendSection", backends), ("PolicySection", policies)):
        common = definitions[section]
        definitions[section] = {
            "description": common["description"],
            "oneOf": [_with_options(kind, options, common) for kind, options in kinds.items()],
        }
    (name,) = definitions["ModelSection"]["properties"]["variants"]["patternProperties"]
    definitions["ModelSection"]["properties"]["variants"]["patternProperties"][name] = {"anyOf": variants}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _with_options(kind: str, options: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """The schema of one kind's section: what all of them have, and its own options."""
    properties = common["properties"] | options.get("properties", {}) | {"kind": {"const": kind}}
    return {
        "title": kind,
        "description": options.get("description", ""),
        "type": "object",
        "properties": properties,
        "required": [*common["required"], *options.get("required", [])],
        "additionalProperties": False,
    }


def _kinds(registry: Registry, definitions: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The options of each kind that can be loaded here, and the variants of those that have any."""
    options: dict[str, dict[str, Any]] = {}
    variants: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            kind = registry.load(name)
        except UnknownKind:
            continue
        options[name] = _dataclass_schema(getattr(kind, "Options", kind), definitions)
        if hasattr(kind, "Variant"):
            variants.append(_dataclass_schema(kind.Variant, definitions) | {"title": f"{name} variant"})
    return options, variants


def _dataclass_schema(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = TypeAdapter(cls).json_schema()
    for name, definition in schema.pop("$defs", {}).items():
        definitions[name] = definition | {"additionalProperties": False}
    return schema | {"additionalProperties": False}
