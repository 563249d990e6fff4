"""Turns the bytes of a policy file into a deployment, or into every problem that it has, each with its line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from policies.document import Document, Path, Problem
from policies.schema import BackendSection, ImageSection, ModelSection, PolicyFile, TensorSection
from router.budget import Budget
from router.deployment import ANY, BackendEntry, Deployment, ModelEntry, RouteRule, Shares
from router.model import ImageSpec, ModelSpec, TensorSpec
from router.ports import Policy
from router.registry import BACKENDS, POLICIES, Registry, UnknownKind
from router.types import ON_PREMISES, UNCLASSIFIED


def load(content: bytes, source: str = "policy file") -> Deployment:
    """Reads a policy file, whole or not at all.

    Args:
        content: The file's bytes.
        source: How the file is called in errors.

    Raises:
        PolicyFileError: With every problem that was found.
    """
    return _Loader(Document(content, source)).deployment()


class _Loader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._problems: list[Problem] = []
        self._kinds = {group: Registry(group) for group in (BACKENDS, POLICIES)}

    def deployment(self) -> Deployment:
        file = self._validated(PolicyFile, self._document.data, ())
        if file is None:
            raise self._document.error(self._problems)
        backends = {name: self._backend(name, section) for name, section in file.backends.items()}
        models = {name: self._model(name, section, file) for name, section in file.models.items()}
        policies = {
            name: self._policy(name, section.kind, section.model_extra) for name, section in file.policies.items()
        }
        residency = self._residency(file)
        deployment = Deployment(
            backends={name: entry for name, entry in backends.items() if entry},
            models={name: entry for name, entry in models.items() if entry},
            policies={name: policy for name, policy in policies.items() if policy},
            routes=tuple(RouteRule(route.model, route.data_class, route.policy) for route in file.routes),
            residency=residency,
            budgets=self._budgets(file),
            shares=Shares(**file.shares.model_dump()),
            device=file.device.limits(),
        )
        self._check_routes(file, deployment)
        if self._problems:
            raise self._document.error(self._problems)
        return deployment

    def _add(self, path: Path, message: str) -> None:
        self._problems.append(self._document.problem(path, message))

    def _validated(self, schema: Any, data: Any, path: Path) -> Any:
        """The data as a `schema`, or None and the problems noted. JSON mode, so that lists may fill tuples."""
        try:
            return TypeAdapter(schema).validate_json(msgspec.json.encode(data), strict=True, extra=_extra(schema))
        except ValidationError as error:
            for found in error.errors():
                self._add((*path, *_named(found["loc"])), _plainly(found["type"], found["msg"]))
        except (TypeError, msgspec.MsgspecError) as error:
            self._add(path, f"holds a value that is not plain text, number, list or mapping: {error}")
        return None

    def _known(self, name: str, known: Iterable[str], path: Path, what: str) -> bool:
        names = sorted(known)
        if name in names:
            return True
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names) or 'none'}"
        self._add(path, f"there is no {what} {name!r}; {hint}")
        return False

    def _kind(self, group: str, kind: str, path: Path) -> Any:
        try:
            return self._kinds[group].load(kind)
        except UnknownKind as error:
            problem = self._document.problem((*path, "kind"), str(error))
            if problem not in self._problems:
                self._problems.append(problem)
            return None

    def _backend(self, name: str, section: BackendSection) -> BackendEntry | None:
        path = ("backends", name)
        kind = self._kind(BACKENDS, section.kind, path)
        options = self._validated(kind.Options, section.model_extra, path) if kind else None
        return BackendEntry(section.kind, section.site, section.price.price(), options) if options else None

    def _policy(self, name: str, kind: str, options: Mapping[str, Any] | None) -> Policy | None:
        path = ("policies", name)
        policy = self._kind(POLICIES, kind, path)
        made: Policy | None = self._validated(policy, options or {}, path) if policy else None
        return made

    def _model(self, name: str, section: ModelSection, file: PolicyFile) -> ModelEntry | None:
        path = ("models", name)
        inputs = self._tensors(section.inputs, (*path, "inputs"))
        outputs = self._tensors(section.outputs, (*path, "outputs"))
        image = self._image(section.image, inputs, (*path, "image")) if section.image else None
        if section.confidence is not None and self._known(section.confidence, outputs, (*path, "confidence"), "output"):
            spec = outputs[section.confidence]
            if not spec.dtype.startswith("float") or not spec.shape:
                self._add((*path, "confidence"), f"{section.confidence} must be floating point, and have rows")
        variants: dict[str, Any] = {}
        for backend, options in section.variants.items():
            where = (*path, "variants", backend)
            if self._known(backend, file.backends, where, "backend"):
                kind = self._kind(BACKENDS, file.backends[backend].kind, ("backends", backend))
                variants[backend] = self._validated(kind.Variant, options, where) if kind else None
        if None in variants.values() or not inputs or not outputs:
            return None
        return ModelEntry(
            spec=ModelSpec(name, section.version, inputs, outputs, section.confidence, image),
            slo_p95_s=section.slo.p95_ms / 1000,
            deadline_s=section.slo.deadline_ms / 1000,
            variants=variants,
        )

    def _tensors(self, sections: Mapping[str, TensorSection], path: Path) -> dict[str, TensorSpec]:
        specs = {}
        for name, section in sections.items():
            try:
                specs[name] = TensorSpec(section.dtype, tuple(section.shape), section.allow_nonfinite)
            except ValueError as error:
                self._add((*path, name, "shape"), str(error))
        return specs

    def _image(self, section: ImageSection, inputs: Mapping[str, TensorSpec], path: Path) -> ImageSpec | None:
        self._known(section.input, inputs, (*path, "input"), "input")
        try:
            return ImageSpec(section.input, tuple(section.stages))
        except ValueError as error:
            self._add((*path, "stages"), str(error))
            return None

    def _residency(self, file: PolicyFile) -> dict[str, frozenset[str] | None]:
        sites = {section.site for section in file.backends.values()} | {ON_PREMISES}
        for data_class, section in file.residency.items():
            for index, site in enumerate(section.sites or ()):
                self._known(site, sites, ("residency", data_class, "sites", index), "site")
        return {
            data_class: None if section.sites is None else frozenset(section.sites)
            for data_class, section in file.residency.items()
        }

    def _budgets(self, file: PolicyFile) -> dict[str, Budget]:
        for name in file.budgets:
            self._known(name, file.backends, ("budgets", name), "backend")
        return {
            name: Budget(section.usd_per_day, section.usd_per_month, section.when_spent)
            for name, section in file.budgets.items()
        }

    def _check_routes(self, file: PolicyFile, deployment: Deployment) -> None:
        for index, route in enumerate(file.routes):
            path = ("routes", index)
            known = self._known(route.policy, file.policies, (*path, "policy"), "policy")
            if route.model != ANY:
                known &= self._known(route.model, file.models, (*path, "model"), "model")
            if route.data_class != ANY:
                classes = {*file.residency, UNCLASSIFIED}
                self._known(route.data_class, classes, (*path, "data_class"), "data class in residency")
            policy = deployment.policies.get(route.policy)
            if not known or policy is None:
                continue
            for name, model in deployment.models.items():
                problem = policy.problem_with(model.spec) if route.model in (ANY, name) else None
                if problem:
                    self._add((*path, "policy"), f"{route.policy} cannot serve {name}: {problem}")
        for name in deployment.models:
            for data_class in deployment.data_classes():
                if deployment.route(name, data_class) is None:
                    what = f"model {name!r} with data class {data_class!r}"
                    self._add(("routes",), f"no route matches {what}; end with one that names neither")


def _extra(schema: Any) -> Any:
    """Unknown keys are errors in dataclasses too; the sections say for themselves what they allow."""
    return None if schema is PolicyFile else "forbid"


def _named(location: tuple[str | int, ...]) -> Path:
    """A location without the steps that pydantic adds for tagged unions, which are no fields of the file."""
    if "stages" not in location:
        return location
    at = location.index("stages") + 2
    return (*location[:at], *location[at + 1 :])


def _plainly(kind: str, message: str) -> str:
    sentences = {
        "extra_forbidden": "unknown key",
        "unexpected_keyword_argument": "unknown key",
        "missing": "missing",
    }
    return sentences.get(kind, message.removeprefix("Value error, ").replace("Input should be", "should be"))
