"""A backend that can run its model on the event loop itself, and what an engine on it comes to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import cast

import numpy as np

from router.deployment import BackendEntry
from router.engine import Engine
from router.errors import BackendError, RouterError
from router.inline import Begun
from router.instance import Instance
from router.model import Tensor
from router.ports import Backend, Call
from router.types import InferenceRequest, InferenceResponse, Reply
from tests.unit.standins import FakeBackend, FakeServable, FakeVariant, Lab, Script
from tests.unit.virtual_time import virtual_loop

Does = Callable[[Call], Reply | Exception]
"""What becomes of a call; time that it takes passes for everybody."""


def rows_of(call: Call) -> Tensor:
    """The rows that were asked for."""
    assert isinstance(call.payload, dict)
    return cast(Tensor, call.payload["x"])


def answers(took_s: float = 0.0, more_rows: int = 0) -> Callable[[Call], Reply]:
    """Gives the input back as scores, with so many rows more than asked for."""

    def does(call: Call) -> Reply:
        virtual_loop().now += took_s
        x = rows_of(call)
        scores = np.concatenate([x, np.ones((more_rows, 2), np.float32)])
        return Reply({"scores": scores, "row": np.arange(len(scores), dtype=np.int64)}, 0.0, 0.0, took_s)

    return does


def fails(error: Exception, took_s: float = 0.0) -> Does:
    """Fails."""

    def does(call: Call) -> Exception:
        virtual_loop().now += took_s
        return error

    return does


@dataclass
class InlineScript(Script):
    """What such a backend does besides.

    Args:
        does: What becomes of each call, whichever way it comes.
        quick: Whether it says that it runs on the loop.
        at_once: How many calls it runs at a time then.
        asked: What it was asked about that: calls and bytes.
        runs: How many calls came at once on the loop.
        breaks: What it raises instead, against its contract.
    """

    does: Does = field(default_factory=answers)
    quick: bool = True
    at_once: int = 1 << 20
    asked: list[tuple[int, int]] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    breaks: Exception | None = None


class InlineServable(FakeServable):
    """Does the same whichever way it is asked, and never waits."""

    script: InlineScript

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Runs it at once, within the coroutine."""
        result = self._done(call, deadline)
        if isinstance(result, Exception):
            raise result
        return result

    def runs_inline(self, calls: int, payload_bytes: int) -> int:
        """As the script says."""
        self.script.asked.append((calls, payload_bytes))
        return self.script.at_once if self.script.quick else 0

    def infer_inline(self, calls: Sequence[Call], deadlines: Sequence[float]) -> list[Reply | BackendError]:
        """Runs it for each in turn."""
        self.script.runs.append(len(calls))
        if self.script.breaks is not None:
            raise self.script.breaks
        results: list[Reply | BackendError] = []
        for call, deadline in zip(calls, deadlines, strict=True):
            result = self._done(call, deadline)
            if isinstance(result, Exception) and not isinstance(result, BackendError):
                raise result
            results.append(result)
        return results

    def _done(self, call: Call, deadline: float) -> Reply | Exception:
        self.script.calls.append(call)
        self.script.deadlines.append(deadline)
        self.script.called_at.append(virtual_loop().time())
        return self.script.does(call)


class InlineBackend(FakeBackend):
    """Opens models that run on the event loop."""

    async def open(self, model: object, variant: FakeVariant) -> FakeServable:
        """Opens one, or raises what the script says."""
        if self.script.open is not None:
            raise self.script.open
        return InlineServable(self.script, variant.label)


class InlineLab(Lab):
    """An engine whose edge runs on the event loop, and whose cloud does not."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts["edge"] = InlineScript()

    @property
    def edge(self) -> InlineScript:
        """The script of the backend of that name."""
        script = self.scripts["edge"]
        assert isinstance(script, InlineScript)
        return script

    def _make(self, entry: BackendEntry) -> Backend:
        if entry.options.name == "edge":
            return InlineBackend(entry.options, self.scripts)
        return super()._make(entry)


def instance(engine: Engine, backend: str = "edge") -> Instance:
    """The model on that backend."""
    return engine._planner.world.generation.targets["m", backend].instance


Ended = InferenceResponse | RouterError


async def by_itself(engine: Engine, request: InferenceRequest) -> Ended:
    """What became of a request the ordinary way."""
    try:
        return await engine.infer(request)
    except RouterError as error:
        return error


async def finished(engine: Engine, result: InferenceResponse | RouterError | Begun) -> Ended:
    """What becomes of a request on the event loop's way."""
    if not isinstance(result, Begun):
        return result
    try:
        return await engine.go_on(result)
    except RouterError as error:
        return error


async def at_once(engine: Engine, request: InferenceRequest) -> Ended:
    """What became of a request on the event loop's way."""
    (result,) = engine.infer_inline([request])
    return await finished(engine, result)


def plain(it: object) -> object:
    """Anything as values that can be compared, private ones included."""
    if isinstance(it, InferenceResponse):
        return it.id, {name: tensor.tolist() for name, tensor in it.outputs.items()}, it.route
    if isinstance(it, RouterError):
        return type(it).__name__, it.detail, it.retry_after_s
    if isinstance(it, list | tuple) or type(it).__name__ == "deque":
        return [plain(one) for one in cast("list[object]", it)]
    if isinstance(it, dict):
        return {key: plain(value) for key, value in it.items()}
    names = [*getattr(type(it), "__slots__", ()), *getattr(it, "__dict__", ())]
    if not names or isinstance(it, Enum):
        return it
    return {name: plain(getattr(it, name)) for name in names if not callable(getattr(it, name))}


def known(lab: Lab) -> object:
    """What engine and observer know, and what the backends were asked."""
    engine = lab.engine
    targets = engine._planner.world.generation.targets
    learnt = {
        name: [
            plain(part)
            for part in (
                target.instance.breaker,
                target.instance.latency,
                target.instance.admission,
                target.instance.unsettled,
                target.instance._tried,
                len(target.instance.limits._pending),
                None if target.purse is None else (target.purse.spent_day_usd, target.purse.spent_month_usd),
            )
        ]
        for (_, name), target in targets.items()
    }
    asked = {
        name: ([(call.request_id, call.rows, call.payload_bytes) for call in script.calls], script.deadlines)
        for name, script in lab.scripts.items()
    }
    leases = engine._planner.world.generation.leases.count
    return learnt, plain(lab.seen), plain(engine._extras), asked, leases, virtual_loop().time()
