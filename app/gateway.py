"""The gateway, assembled: every part of the process is made and connected here, and nowhere else."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI

from app.api import make_api
from app.auth import RequireKey
from app.front import ASGIApp, Front
from app.lifecycle import Lifecycle
from app.metrics import Metrics, SnapshotCollector
from app.policy_file import PolicyFile
from app.settings import Settings, last_good_policy
from backends.image import preprocess
from backends.registry import backend_maker
from router.engine import Engine
from router.ledger import Ledger


def make_gateway(settings: Settings, lifecycle: Lifecycle) -> ASGIApp:
    """The whole service as one ASGI callable; it starts and ends with the server's lifespan."""
    metrics = Metrics()
    ledger = Ledger(settings.state_dir / "budgets")
    engine = Engine(
        make_backend=backend_maker(settings.models_dir, settings.state_dir / "optimised-models"),
        preprocess=preprocess,
        observer=metrics,
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

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.running(), asyncio.TaskGroup() as tasks:
            await policy_file.start()
            # What is there by now stays: a collector that looks through it again stops every request for 10 ms or more.
            gc.collect()
            gc.freeze()
            watching = tasks.create_task(policy_file.watch(), name="policy file")
            yield
            watching.cancel()

    front = Front(engine, settings.max_body_bytes, settings.body_timeout_s, metrics.error_answered)
    app: ASGIApp = front.before(make_api(engine, policy_file, metrics.registry, front, lifecycle, lifespan))
    if settings.api_key is not None:
        app = RequireKey(app, settings.api_key.get_secret_value(), metrics.error_answered)
    return app
