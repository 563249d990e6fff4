"""The gateway, assembled: every part of the process is made and connected here, and nowhere else."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app.api import make_api
from app.auth import RequireKey
from app.device_health import DeviceSensing, sources
from app.device_metrics import DeviceCollector
from app.fast_path import FastPath
from app.front import ASGIApp, Front
from app.lifecycle import Lifecycle
from app.metrics import Metrics, SnapshotCollector
from app.policy_file import PolicyFile
from app.settings import Settings, last_good_policy
from app.statistics import Statistics
from app.views import readiness
from backends.image import preprocess
from backends.registry import backend_maker
from router.engine import Engine
from router.ledger import Ledger

if TYPE_CHECKING:
    from app.rpc.server import RpcServer


@dataclass(frozen=True, slots=True)
class Gateway:
    """The whole service, as its two fronts.

    Args:
        http: An ASGI callable, with whose lifespan the service starts and ends.
        fast_path: Answers those requests to `http` that come whole and ask for nothing special.
        rpc: The gRPC server, to be bound before that and started after it; None where it is turned off.
    """

    http: ASGIApp
    fast_path: FastPath
    rpc: RpcServer | None


def make_gateway(settings: Settings, lifecycle: Lifecycle) -> Gateway:
    """The whole service; nothing is started yet."""
    metrics = Metrics()
    statistics = Statistics(lambda: time.time_ns() // 1_000_000, then=metrics)
    ledger = Ledger(settings.state_dir / "budgets")
    engine = Engine(
        make_backend=backend_maker(settings.models_dir, settings.state_dir / "optimised-models"),
        preprocess=preprocess,
        observer=statistics,
        clock=time.monotonic,
        random=random.random,
        today=lambda: datetime.now(UTC).date(),
        ledger=ledger,
    )
    policy_file = PolicyFile(settings.policy, last_good_policy(settings), engine, now=lambda: datetime.now(UTC))
    metrics.registry.register(
        SnapshotCollector(
            lambda: engine.snapshot,
            lambda: engine.purses,
            lambda: policy_file.state.file_is_in_force,
            lambda: engine.runtimes,
        )
    )
    metrics.registry.register(DeviceCollector(lambda: engine.snapshot.device))
    sensing = DeviceSensing(
        sources(
            settings.device_root,
            settings.state_dir,
            has_hat=lambda: any(entry.kind == "hailo" for entry in engine.deployment.backends.values()),
        ),
        engine.sense,
        time.monotonic,
    )

    rpc = _make_rpc(settings, engine, statistics, lifecycle, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.running(), asyncio.TaskGroup() as tasks:
            await policy_file.start()
            # What is there by now stays: a collector that looks through it again stops every request for 10 ms or more.
            gc.freeze()
            gc.enable()
            beside = [
                tasks.create_task(policy_file.watch(), name="policy file"),
                tasks.create_task(sensing.run(), name="device"),
            ]
            yield
            if rpc is not None:
                await rpc.stop()
            for task in beside:
                task.cancel()

    front = Front(engine, settings.max_body_bytes, settings.body_timeout_s, metrics.error_answered)
    api = make_api(engine, policy_file, metrics.registry, statistics, front, lifecycle, lifespan)
    app: ASGIApp = front.before(api)
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    if key is not None:
        app = RequireKey(app, key, metrics.error_answered)
    return Gateway(app, FastPath(engine, settings.max_body_bytes, key, metrics.error_answered), rpc)


def _make_rpc(
    settings: Settings, engine: Engine, statistics: Statistics, lifecycle: Lifecycle, metrics: Metrics
) -> RpcServer | None:
    if settings.grpc_port is None:
        return None
    from app.rpc.server import RpcServer  # only here: a gateway without gRPC need not load it

    return RpcServer(
        engine,
        statistics,
        host=settings.host,
        port=settings.grpc_port,
        max_body_bytes=settings.max_body_bytes,
        key=None if settings.api_key is None else settings.api_key.get_secret_value(),
        drain_timeout_s=settings.drain_timeout_s,
        is_ready=lambda: readiness(engine.snapshot, lifecycle.draining)[0],
        count_error=metrics.error_answered,
    )
