"""What a policy file says, checked and free of YAML: the engine's whole configuration, as one immutable value."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.budget import Budget
from router.device import DeviceLimits
from router.errors import UnknownModel
from router.model import ModelSpec
from router.ports import Policy, VariantOptions
from router.pricing import Price
from router.types import UNCLASSIFIED

ANY = "*"


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """One way to run models.

    Args:
        kind: Which implementation, by the name it is registered under.
        site: Where it stands; data classes are restricted by site.
        price: What its inferences cost.
        options: The implementation's own options.
    """

    kind: str
    site: str
    price: Price
    options: Any


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model and the backends that have it.

    Args:
        spec: What it takes and gives.
        slo_p95_s: The latency that its users expect of 95 % of requests, seconds.
        deadline_s: The deadline of a request that names none, seconds.
        variants: The model's variant on each backend that has it, in order of preference within a site.
    """

    spec: ModelSpec
    slo_p95_s: float
    deadline_s: float
    variants: Mapping[str, VariantOptions]


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Which policy serves a model and data class; `*` is any. The first rule that matches wins."""

    model: str
    data_class: str
    policy: str


@dataclass(frozen=True, slots=True)
class Shares:
    """How much may be sent on top of the traffic, in requests per request.

    Args:
        hedges: Second attempts that start before the first has ended.
        retries: Second attempts on a backend that could not be reached.
        explorations: Requests that take a plan's other order, so that its estimates stay fresh.
    """

    hedges: float = 0.1
    retries: float = 0.1
    explorations: float = 0.01


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that a policy file decides.

    Args:
        backends: By name.
        models: By name.
        policies: By name.
        routes: In order; the first that matches wins.
        residency: For each known data class the sites where it may go, or None for any.
        budgets: What backends may cost, by their names.
        shares: How much may be sent on top of the traffic.
        device: How warm the device may get.
    """

    backends: Mapping[str, BackendEntry]
    models: Mapping[str, ModelEntry]
    policies: Mapping[str, Policy]
    routes: tuple[RouteRule, ...]
    residency: Mapping[str, frozenset[str] | None]
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    shares: Shares = Shares()
    device: DeviceLimits = field(default_factory=DeviceLimits)

    def model(self, name: str) -> ModelEntry:
        """The model of that name.

        Raises:
            UnknownModel: There is none; the error lists those that there are.
        """
        entry = self.models.get(name)
        if entry is None:
            known = sorted(self.models)
            close = difflib.get_close_matches(name[:64], known[:200], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UnknownModel(
                f"There is no model {name[:200]!r}.{hint} GET /models lists those that there are.",
                field="model",
                extra={"known_models": known[:50]},
            )
        return entry

    def route(self, model: str, data_class: str) -> str | None:
        """Name of the policy for this model and data class, or None where no rule matches."""
        for rule in self.routes:
            if rule.model in (ANY, model) and rule.data_class in (ANY, data_class):
                return rule.policy
        return None

    def data_classes(self) -> tuple[str, ...]:
        """The data classes a request may name."""
        return tuple(dict.fromkeys((*self.residency, UNCLASSIFIED)))

    def sites(self, data_class: str) -> frozenset[str]:
        """The sites where data of this class may go: all of them unless the file says otherwise."""
        permitted = self.residency.get(data_class)
        return frozenset(entry.site for entry in self.backends.values()) if permitted is None else permitted
