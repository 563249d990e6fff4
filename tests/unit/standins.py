"""Stand-ins that implement the ports of the engine and do what a test scripts: answer, hang, raise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from router.deployment import BackendEntry, Deployment
from router.engine import Engine
from router.errors import RouterError
from router.ledger import Ledger
from router.model import ImageSpec, ModelSpec, Tensor
from router.plan import Attempt, Plan
from router.ports import Backend, BackendContext, Call, Policy
from router.snapshot import Snapshot
from router.types import ON_PREMISES, AttemptRecord, EncodedImage, Facts, InferenceResponse, Reply
from tests.unit.virtual_time import FOREVER, virtual_loop

Behaviour = Callable[[Call], Awaitable[Reply]]

PROBE_REPLY = Reply({}, 0.0, 0.001, 0.009)
"""What a synthetic probe measures by default: 10 ms."""


def answer(value: float = 0.0, *, after: float = 0.01) -> Behaviour:
    """Answers after some seconds: `scores` is the input where `value` is 0, else `value` everywhere; `row` counts."""

    async def infer(call: Call) -> Reply:
        await asyncio.sleep(after)
        x = np.zeros((1, 2), np.float32) if isinstance(call.payload, EncodedImage) else call.payload["x"]
        scores = x.copy() if value == 0.0 else np.full_like(x, value)
        return Reply({"scores": scores, "row": np.arange(len(x), dtype=np.int64)}, 0.0, 0.001, after - 0.001)

    return infer


def fail(error: Exception, *, after: float = 0.01) -> Behaviour:
    """Raises after some seconds."""

    async def infer(call: Call) -> Reply:
        await asyncio.sleep(after)
        raise error

    return infer


async def hang(call: Call) -> Reply:
    """Never answers, as if packets vanished."""
    await asyncio.sleep(FOREVER_S)
    raise AssertionError("nobody waits that long")


FOREVER_S = 1e6
assert FOREVER_S < FOREVER


async def ready() -> None:
    """Passes a probe at once."""


async def silent() -> None:
    """Never answers a probe."""
    await asyncio.sleep(FOREVER_S)


def slow_probe(seconds: float) -> Callable[[], Awaitable[None]]:
    """Passes a probe after some seconds."""

    async def probe() -> None:
        await asyncio.sleep(seconds)

    return probe


def failing_probe(error: Exception) -> Callable[[], Awaitable[None]]:
    """Fails a probe at once."""

    async def probe() -> None:
        raise error

    return probe


@dataclass
class Script:
    """What a backend of this name does, whatever generation it belongs to, and what was done to it."""

    infer: Behaviour = field(default_factory=answer)
    probe: Callable[[], Awaitable[None]] = ready
    open: Exception | None = None
    close: Exception | None = None
    probe_reply: Reply = field(default_factory=lambda: PROBE_REPLY)
    calls: list[Call] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    called_at: list[float] = field(default_factory=list)
    probes: list[bool] = field(default_factory=list)
    probed_at: list[float] = field(default_factory=list)
    cancelled: int = 0
    made: int = 0
    closed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """Which script a backend follows, and a number that tests change to make it another backend."""

    name: str
    edition: int = 1


@dataclass(frozen=True, slots=True)
class FakeVariant:
    """A variant."""

    label: str = "v1"
    takes_image: bool = False


class FakeServable:
    """One model on a `FakeBackend`."""

    def __init__(self, script: Script, label: str) -> None:
        self.script = script
        self.label = label

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Does what the script says at this moment."""
        self.script.calls.append(call)
        self.script.deadlines.append(deadline)
        self.script.called_at.append(virtual_loop().time())
        try:
            return await self.script.infer(call)
        except asyncio.CancelledError:
            self.script.cancelled += 1
            raise

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Does what the script says at this moment."""
        self.script.probes.append(synthetic)
        self.script.probed_at.append(virtual_loop().time())
        await self.script.probe()
        return self.script.probe_reply if synthetic else None

    async def close(self) -> None:
        """Notes it."""
        self.script.closed.append(self.label)


class FakeBackend:
    """A backend that follows the script of its name."""

    Options: ClassVar[type] = FakeOptions
    Variant: ClassVar[type] = FakeVariant
    on_device: ClassVar[bool] = True

    def __init__(self, options: FakeOptions, context: BackendContext | dict[str, Script]) -> None:
        assert isinstance(context, dict)
        self.script = context.setdefault(options.name, Script())
        self.script.made += 1

    async def open(self, model: ModelSpec, variant: FakeVariant) -> FakeServable:
        """Opens, or raises what the script says."""
        if self.script.open is not None:
            raise self.script.open
        return FakeServable(self.script, f"{model.name}/{variant.label}")

    async def close(self) -> None:
        """Notes it, and raises what the script says."""
        self.script.closed.append("backend")
        if self.script.close is not None:
            raise self.script.close


class FakeServer(FakeBackend):
    """The same on another machine."""

    on_device: ClassVar[bool] = False


@dataclass(frozen=True)
class FixedPolicy(Policy):
    """Plans the same whatever it is asked, permitted or not."""

    attempts: tuple[Attempt, ...]
    reason: str = "the test says so"
    explore: tuple[Attempt, ...] = ()

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """The attempts as they were given."""
        return Plan(self.attempts, self.reason, self.explore)


@dataclass
class Recorder:
    """An observer that remembers."""

    plans: list[float] = field(default_factory=list)
    blocked: list[tuple[str, str]] = field(default_factory=list)
    answers: list[InferenceResponse] = field(default_factory=list)
    failures: list[tuple[str, str, RouterError, list[AttemptRecord]]] = field(default_factory=list)
    hang_ups: list[tuple[str, str, list[AttemptRecord]]] = field(default_factory=list)

    def planned(self, seconds: float) -> None:
        """A request was planned."""
        self.plans.append(seconds)

    def residency_blocked(self, backend: str, data_class: str) -> None:
        """The guard dropped a backend."""
        self.blocked.append((backend, data_class))

    def answered(self, response: InferenceResponse) -> None:
        """A request was answered."""
        self.answers.append(response)

    def failed(self, model: str, policy: str, error: RouterError, attempts: Sequence[AttemptRecord]) -> None:
        """A request failed."""
        self.failures.append((model, policy, error, list(attempts)))

    def hung_up(self, model: str, policy: str, attempts: Sequence[AttemptRecord]) -> None:
        """A client hung up."""
        self.hang_ups.append((model, policy, list(attempts)))

    @property
    def ends(self) -> tuple[int, int, int]:
        """How many requests were answered, failed, hung up."""
        return len(self.answers), len(self.failures), len(self.hang_ups)


NOWHERE = Path("/proc/no-such-folder")
"""Cannot be made: a ledger there counts in memory."""


class Lab:
    """An engine on stand-ins, in virtual time.

    Args:
        folder: Where the ledger keeps what was spent; by default nowhere.

    Attributes:
        scripts: What each backend does, by name; set before `running` to script how it opens.
        seen: What the engine told its observer.
        staged: What the image stages made of an image, or the error that they raise.
    """

    def __init__(self, folder: Path = NOWHERE) -> None:
        self.scripts: dict[str, Script] = {"edge": Script(), "cloud": Script()}
        self.today = date(2026, 11, 24)
        self.seen = Recorder()
        self.staged: dict[str, Tensor] | Exception = {"x": np.full((1, 2), 0.5, np.float32)}
        self.stagings = 0
        self.engine = Engine(
            make_backend=self._make,
            preprocess=self._preprocess,
            observer=self.seen,
            clock=lambda: virtual_loop().time(),
            random=lambda: 0.5,
            today=lambda: self.today,
            ledger=Ledger(folder),
        )

    @property
    def edge(self) -> Script:
        """The script of the backend of that name."""
        return self.scripts["edge"]

    @property
    def cloud(self) -> Script:
        """The script of the backend of that name."""
        return self.scripts["cloud"]

    def _make(self, entry: BackendEntry) -> Backend:
        kind = FakeBackend if entry.site == ON_PREMISES else FakeServer
        return kind(entry.options, self.scripts)

    def _preprocess(self, image: EncodedImage, spec: ImageSpec, model: ModelSpec) -> dict[str, Any]:
        self.stagings += 1
        if isinstance(self.staged, Exception):
            raise self.staged
        return self.staged

    @asynccontextmanager
    async def running(self, deployment: Deployment) -> AsyncIterator[Engine]:
        """The engine with this deployment in force; what opening and the first probes did is forgotten."""
        async with self.engine.running():
            await self.engine.adopt(deployment, must_open=False)
            for script in self.scripts.values():
                script.probes.clear()
                script.probed_at.clear()
            yield self.engine
