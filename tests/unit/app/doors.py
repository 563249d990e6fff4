"""Two doors to one engine, on loopback: one that knows the short way for requests, one that has the long way only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.auth import RequireKey
from app.fast_path import FastPath
from app.front import ASGIApp, Front
from app.http import Receive, Scope, Send, respond
from app.http_protocol import HttpProtocol
from app.server import uvicorn_config
from app.settings import Settings
from router.deployment import BackendEntry, Deployment, ModelEntry, RouteRule
from router.engine import Engine
from router.errors import BackendError, RouterError
from router.ledger import Ledger
from router.model import ModelSpec
from router.plan import Attempt
from router.ports import Backend, Call
from router.types import Reply
from tests.unit.app.wire import eventually
from tests.unit.samples import MODEL, deployment
from tests.unit.standins import NOWHERE, FakeBackend, FakeServable, FakeVariant, FixedPolicy, Lab, Script, answer

MOST_BYTES = 4096
"""The largest body that is let in."""


@dataclass
class LiveScript(Script):
    """Also notes how many calls each run on the event loop was shared by."""

    shared_by: list[int] = field(default_factory=list)


class LiveServable(FakeServable):
    """A stand-in in real time."""

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Does what the script says at this moment."""
        self.script.calls.append(call)
        try:
            return await self.script.infer(call)
        except asyncio.CancelledError:
            self.script.cancelled += 1
            raise

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Passes."""
        return self.script.probe_reply if synthetic else None


class QuickServable(LiveServable):
    """One that runs on the event loop itself; the scores are the input."""

    def runs_inline(self, calls: int, payload_bytes: int) -> int:
        """It always does."""
        return calls

    def infer_inline(self, calls: Sequence[Call], deadlines: Sequence[float]) -> Sequence[Reply | BackendError]:
        """Answers at once."""
        assert isinstance(self.script, LiveScript)
        self.script.shared_by.append(len(calls))
        return [_scores(call) for call in calls]


def _scores(call: Call) -> Reply:
    assert isinstance(call.payload, Mapping)
    x = call.payload["x"]
    return Reply({"scores": x.copy(), "row": np.arange(len(x), dtype=np.int64)}, 0.0, 0.0, 0.001)


class LiveBackend(FakeBackend):
    """A backend in real time."""

    async def open(self, model: ModelSpec, variant: FakeVariant) -> FakeServable:
        """Opens."""
        kind = QuickServable if model.name == "quick" else LiveServable
        return kind(self.script, f"{model.name}/{variant.label}")


class LiveLab(Lab):
    """An engine in real time: its model `quick` answers on the event loop, `slow` as the script of the cloud says."""

    def __init__(self) -> None:
        super().__init__()
        self.quick = LiveScript()
        self.scripts = {"edge": self.quick, "cloud": Script(answer(after=0.001))}
        self.engine = Engine(
            make_backend=self._make,
            preprocess=self._preprocess,
            observer=self.seen,
            clock=time.monotonic,
            random=lambda: 0.5,
            today=lambda: self.today,
            ledger=Ledger(NOWHERE),
        )

    def _make(self, entry: BackendEntry) -> Backend:
        return LiveBackend(entry.options, self.scripts)


def two_models() -> Deployment:
    """A deployment of both."""

    def entry(name: str, backend: str) -> ModelEntry:
        return ModelEntry(replace(MODEL, name=name), 1.0, 30.0, {backend: FakeVariant()})

    return replace(
        deployment(),
        models={"quick": entry("quick", "edge"), "slow": entry("slow", "cloud")},
        policies={"quick": FixedPolicy((Attempt("edge", "v1"),)), "slow": FixedPolicy((Attempt("cloud", "v1"),))},
        routes=(RouteRule("quick", "*", "quick"), RouteRule("slow", "*", "slow")),
    )


async def _behind(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands behind the front: tells what it was asked."""
    if scope["type"] == "lifespan":
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    asked = [scope["method"], scope["path"], scope["query_string"].decode("latin-1"), body.decode("latin-1")]
    await respond(send, 404, orjson.dumps(asked), ((b"content-type", b"application/json"),))


@dataclass(frozen=True)
class Door:
    """Where a server listens, and what it knows of its connections."""

    port: int
    state: ServerState


@dataclass(frozen=True)
class House:
    """An engine, both ways to it, and the errors that were answered on either."""

    lab: LiveLab
    app: ASGIApp
    fast_path: FastPath
    errors: list[RouterError]

    def config(self) -> uvicorn.Config:
        """How it is served."""
        return uvicorn_config(self.app, self.fast_path, Settings(grpc_port=None, port=0))

    @asynccontextmanager
    async def door(self, *, short: bool = True, keep_alive_s: float = 5.0) -> AsyncIterator[Door]:
        """Opens one; only if it is `short` it knows the short way."""
        config = self.config()
        config.load()
        config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]  # uvicorn hands it to the loop
        state = ServerState()

        def connection() -> asyncio.Protocol:
            known: dict[str, Any] = {"config": config, "server_state": state, "app_state": {}}
            return HttpProtocol(fast_path=self.fast_path, **known) if short else HttpToolsProtocol(**known)

        server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
        try:
            yield Door(server.sockets[0].getsockname()[1], state)
        finally:
            server.close()
            for left in list(state.connections):
                assert isinstance(left, HttpToolsProtocol)
                left.transport.abort()
            await eventually(lambda: not state.connections and not state.tasks)


@asynccontextmanager
async def house(key: str | None = None, body_timeout_s: float = 10.0) -> AsyncIterator[House]:
    """One with this key, and this time for bodies to come."""
    lab = LiveLab()
    errors: list[RouterError] = []
    app: ASGIApp = Front(lab.engine, MOST_BYTES, body_timeout_s, errors.append).before(_behind)
    if key is not None:
        app = RequireKey(app, key, errors.append)
    async with lab.running(two_models()):
        yield House(lab, app, FastPath(lab.engine, MOST_BYTES, key, errors.append), errors)
