"""What the engine's decision costs, by the number of models and routes: `python -m tests.perf.decision`.

A decision is everything that the engine does for a request on a backend that answers at once: plan, guard, admission,
permit, price, estimates, route, accounts; no front, no model, no metrics. Beside it the first plan after the world has
changed, which one request in a tenth of a second pays for, and what looking at the world costs, during which nobody is
served: where nothing happened since the last look, and where every model was asked. Times are medians of the rounds'.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np

from backends.image import preprocess
from policies.loader import load
from router.deployment import BackendEntry, Deployment
from router.engine import Engine
from router.ledger import Ledger
from router.model import ModelSpec
from router.ports import Call
from router.types import InferenceRequest, Reply, nbytes

HEAD = """
version: 1
backends:
  edge:
    kind: onnx
    site: on-premises
    price: {device: {hardware_usd: 200, lifetime_years: 3, watts: 5, usd_per_kwh: 0.12, operations_usd_per_year: 50,
      inferences_per_month: 2160000}}
  cloud:
    kind: triton
    site: cloud
    url: grpc://127.0.0.1:8001
    price: {node: {node_usd_per_hour: 2.0, inferences_per_second: 200}}
policies: {kiosk: {kind: local-first}, documents: {kind: cloud-primary}}
residency: {phi: {sites: [on-premises]}}
"""
MODEL = """
  model-{number}:
    inputs: {{x: {{dtype: float32, shape: [-1, 4]}}}}
    outputs: {{y: {{dtype: float32, shape: [-1, 4]}}}}
    slo: {{p95_ms: 50, deadline_ms: 500}}
    variants: {{edge: {{file: model.onnx}}, cloud: {{name: model}}}}"""
INPUTS = {"x": np.zeros((1, 4), np.float32)}


class Instant:
    """A backend, and a model opened on it, that answers at once."""

    on_device = True

    async def open(self, model: ModelSpec, variant: Any) -> Instant:
        """Nothing to open."""
        return Instant()

    async def infer(self, call: Call, deadline: float) -> Reply:
        """The input."""
        assert isinstance(call.payload, dict)
        return Reply({"y": call.payload["x"]}, 0.0, 0.0, 1e-5)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Fine."""
        return Reply({}, 0.0, 0.0, 1e-5) if synthetic else None

    async def close(self) -> None:
        """Nothing to close."""


class Silent:
    """An observer that looks away."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def deployment(count: int) -> Deployment:
    """So many models on two backends each, and so many routes."""
    models = "models:" + "".join(MODEL.format(number=number) for number in range(count))
    routes = "".join(f"  - {{model: model-{number}, data_class: phi, policy: kiosk}}\n" for number in range(count - 1))
    return load(f"{HEAD}{models}\nroutes:\n{routes}  - {{policy: documents}}\n".encode())


def request(number: int, now: float) -> InferenceRequest:
    """A request of the one model that only the last route matches."""
    return InferenceRequest("r", f"model-{number}", INPUTS, nbytes(INPUTS), "phi", now)


async def measure(count: int, rounds: int, calls: int, folder: Path) -> list[float]:
    """Seconds: decision P50 and P99, first plan, idle look, busy look; medians of the rounds."""

    def make_backend(entry: BackendEntry) -> Any:
        return Instant()

    clock = time.perf_counter
    engine = Engine(
        make_backend=make_backend,
        preprocess=preprocess,
        observer=Silent(),
        clock=clock,
        random=lambda: 0.5,
        today=lambda: date(2026, 11, 24),
        ledger=Ledger(folder),
    )
    measured = []
    async with engine.running():
        await engine.adopt(deployment(count), must_open=True)
        for _ in range(rounds):
            took = []
            for _ in range(calls):
                began = clock()
                await engine.infer(request(count - 1, began))
                took.append(clock() - began)
            took.sort()
            engine.refresh()
            first = _time(lambda: engine.prepare(request(count - 1, clock())))
            await asyncio.sleep(0)
            idle = _time(engine.refresh)
            for number in range(count):
                await engine.infer(request(number, clock()))
            busy = _time(engine.refresh)
            measured.append((took[calls // 2], took[calls * 99 // 100], first, idle, busy))
    return [statistics.median(column) for column in zip(*measured, strict=True)]


def _time(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each is measured.")
@click.option("--calls", default=3000, show_default=True, help="Decisions in each round.")
@click.option("--counts", default="1,10,100,1000", show_default=True, help="Numbers of models, and of routes.")
def main(rounds: int, calls: int, counts: str) -> None:
    """Measure what the engine's decision costs, by the number of models and routes."""
    click.echo(
        "| models and routes | decision, median | decision, P99 | first plan | look, nothing new | look, all asked |\n"
        "|---|---|---|---|---|---|"
    )
    for count in map(int, counts.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            measured = asyncio.run(measure(count, rounds, calls, Path(folder)))
        cells = " | ".join(f"{seconds * 1e6:,.1f} µs" for seconds in measured)
        click.echo(f"| {count:,} | {cells} |")


if __name__ == "__main__":
    main()
