"""One policy file's run time: its backends and targets, opened; and the world: a generation and its snapshot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from router.deployment import BackendEntry, Deployment
from router.device import DeviceView
from router.errors import BackendError
from router.instance import Instance, open_instance
from router.ports import Backend, RunsHere, Runtime
from router.purse import Purse, Purses
from router.snapshot import ModelView, Snapshot, TargetView
from router.target import Target
from router.types import Facts

log = logging.getLogger(__name__)


class Leases:
    """Counts the requests that use a generation.

    Attributes:
        count: How many do. Each adds one when it begins, and calls `give_back` however it ends.
    """

    __slots__ = ("_idle", "count")

    def __init__(self) -> None:
        self.count = 0
        self._idle: asyncio.Event | None = None

    def give_back(self) -> None:
        """A request has ended."""
        self.count -= 1
        if self.count == 0 and self._idle is not None:
            self._idle.set()

    async def ended(self) -> None:
        """Waits for the last one. Every request has a deadline, so this ends."""
        if self.count:
            self._idle = asyncio.Event()
            await self._idle.wait()


@dataclass(frozen=True, slots=True)
class Generation:
    """What one version of the policy file put in force.

    Args:
        number: Counts up with each version.
        deployment: What the file says.
        backends: The backends that it names.
        targets: Every model on every backend that has it, by model and backend.
        purses: What backends may still cost, of those that have a budget.
        leases: The requests that use it.
    """

    number: int
    deployment: Deployment
    backends: dict[str, Backend]
    targets: dict[tuple[str, str], Target]
    purses: dict[str, Purse]
    leases: Leases

    @staticmethod
    def empty() -> Generation:
        """The generation before the first."""
        return Generation(0, Deployment({}, {}, {}, (), {}), {}, {}, {}, Leases())

    def instances(self) -> set[Instance]:
        """All opened models."""
        return {target.instance for target in self.targets.values()}

    def runtimes(self) -> dict[tuple[str, str], Runtime]:
        """What those of them run on that run in this process, by model and backend."""
        return {
            key: target.instance.servable.runtime
            for key, target in self.targets.items()
            if isinstance(target.instance.servable, RunsHere)
        }

    @staticmethod
    def problems(instances: set[Instance]) -> list[str]:
        """A sentence for each of these that could not be opened."""
        return sorted(
            f"models.{instance.model.name}: {instance.servable.detail}"
            for instance in instances
            if isinstance(instance.servable, BackendError)
        )

    async def close_all_but(self, kept: Generation) -> None:
        """Closes what `kept` does not use either. Nothing of it is in flight when this is called."""
        for instance in self.instances() - kept.instances():
            await instance.close()
        still_used = set(map(id, kept.backends.values()))
        for backend in self.backends.values():
            if id(backend) not in still_used:
                try:
                    await backend.close()
                except Exception:  # what is being thrown away must not take the engine with it
                    log.exception("closing a backend failed")


async def open_generation(
    deployment: Deployment,
    before: Generation,
    make_backend: Callable[[BackendEntry], Backend],
    clock: Callable[[], float],
    purses: Purses | None,
) -> Generation:
    """Opens what a deployment names, taking over from the generation before what did not change.

    Without purses nothing is charged: for a trial, which asks nobody anything.
    """
    backends = {
        name: _take_over(name, entry, before) or make_backend(entry) for name, entry in deployment.backends.items()
    }
    async with asyncio.TaskGroup() as opening:
        tasks = {
            (model, backend): opening.create_task(
                _instance(backends[backend], deployment, model, backend, before, clock)
            )
            for model, entry in deployment.models.items()
            for backend in entry.variants
        }
    purse_of: dict[str, Purse] = {}
    if purses is not None:
        for name, budget in deployment.budgets.items():
            purse_of[name] = await asyncio.to_thread(purses.of, name, budget)
    targets = {
        (model, name): Target(name, deployment.backends[name], task.result(), purse_of.get(name))
        for (model, name), task in tasks.items()
    }
    return Generation(before.number + 1, deployment, backends, targets, purse_of, Leases())


def _take_over(name: str, entry: BackendEntry, before: Generation) -> Backend | None:
    """The backend of that name as it is, if only its site or price changed."""
    old = before.deployment.backends.get(name)
    same = old is not None and (old.kind, old.options) == (entry.kind, entry.options)
    return before.backends[name] if same else None


async def _instance(
    backend: Backend, deployment: Deployment, model: str, name: str, before: Generation, clock: Callable[[], float]
) -> Instance:
    spec, variant = deployment.models[model].spec, deployment.models[model].variants[name]
    old = before.targets.get((model, name))
    if old is not None and old.instance.serves(backend, spec, variant):
        return old.instance
    return await open_instance(backend, spec, variant, clock())


@dataclass(frozen=True, slots=True)
class World:
    """A generation and what policies see of it; replaced as a whole."""

    generation: Generation
    snapshot: Snapshot

    @staticmethod
    def empty() -> World:
        """The world before the first policy file."""
        return World(Generation.empty(), Snapshot(0, 0.0, {}, {}, {}))

    @staticmethod
    def of(generation: Generation, now: float) -> World:
        """The world as the generation's instances are now."""
        for instance in generation.instances():
            instance.settle(now)
        deployment = generation.deployment
        sites = {name: deployment.sites(name) for name in deployment.data_classes()}
        return World(generation, Snapshot(generation.number, now, {}, {}, sites)).sensing(DeviceView())

    def remembering(self, incumbents: Mapping[Facts, str]) -> World:
        """The same world, with who stood first in the latest plans."""
        return World(self.generation, replace(self.snapshot, incumbents=dict(incumbents)))

    def sensing(self, device: DeviceView) -> World:
        """The same world with the device like this; policies see its targets anew if its strain changed."""
        if self.snapshot.targets and device.strain is self.snapshot.device.strain:
            return World(self.generation, replace(self.snapshot, device=device))
        deployment = self.generation.deployment
        targets = {key: target.view(device.strain) for key, target in self.generation.targets.items()}
        models = {name: _model_view(deployment, name, targets) for name in deployment.models}
        return World(self.generation, replace(self.snapshot, models=models, targets=targets, device=device))

    def refreshed(self, now: float) -> World:
        """The world now; itself, if nothing happened since."""
        changed = [
            key
            for key, target in self.generation.targets.items()
            if target.instance.unsettled or target.instance.latency.outdated(now)
        ]
        if not changed:
            return self
        targets, models = dict(self.snapshot.targets), dict(self.snapshot.models)
        for key in changed:
            target = self.generation.targets[key]
            target.instance.settle(now)
            targets[key] = target.view(self.snapshot.device.strain)
        for name in {model for model, _ in changed}:
            models[name] = _model_view(self.generation.deployment, name, targets)
        return World(self.generation, replace(self.snapshot, taken_at=now, models=models, targets=targets))


def _model_view(deployment: Deployment, name: str, targets: dict[tuple[str, str], TargetView]) -> ModelView:
    entry = deployment.models[name]
    return ModelView(
        slo_p95_s=entry.slo_p95_s,
        image=entry.spec.image,
        targets=tuple(targets[name, backend] for backend in entry.variants),
    )
