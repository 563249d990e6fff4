"""What shared runs do for a model of some milliseconds: `python -m tests.perf.batching`.

A multilayer perceptron with 200 MB of weights, made on the spot, most of whose time goes into reading them; through the
engine, admission and learnt limit included, by clients that ask again as soon as they are answered. Each number of
clients is measured in turn with `max_batch_rows: 1` and as it is by default.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

import click
import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper, numpy_helper

from backends.image import preprocess
from backends.registry import backend_maker
from policies.loader import load
from router.engine import Engine
from router.errors import RouterError
from router.ledger import Ledger
from router.types import InferenceRequest, nbytes
from tests.perf.decision import Silent

WIDTH, LAYERS = 2048, 12
INPUTS = {"x": np.ones((1, WIDTH), np.float32)}
POLICY = """
version: 1
backends:
  edge:
    kind: onnx
    site: on-premises
    max_batch_rows: {rows}
    price: {{device: {{hardware_usd: 200, lifetime_years: 3, watts: 5, usd_per_kwh: 0.12, operations_usd_per_year: 50,
      inferences_per_month: 2160000}}}}
models:
  perceptron:
    inputs: {{x: {{dtype: float32, shape: [-1, {width}]}}}}
    outputs: {{y: {{dtype: float32, shape: [-1, {width}]}}}}
    slo: {{p95_ms: 50, deadline_ms: 2000}}
    variants: {{edge: {{file: perceptron.onnx}}}}
policies: {{kiosk: {{kind: local-first}}}}
routes: [{{policy: kiosk}}]
"""


def save_perceptron(file: Path) -> None:
    """Layers of the same width, weights at random."""
    random = np.random.default_rng(0)
    nodes, weights, source = [], [], "x"
    for layer in range(LAYERS):
        values = (random.standard_normal((WIDTH, WIDTH), np.float32) / np.sqrt(WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"weights_{layer}"))
        target = "y" if layer == LAYERS - 1 else f"relu_{layer}"
        nodes.append(helper.make_node("MatMul", [source, f"weights_{layer}"], [f"product_{layer}"]))
        nodes.append(helper.make_node("Relu", [f"product_{layer}"], [target]))
        source = target
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "perceptron", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


async def measure(folder: Path, rows: int, clients: int, seconds: float) -> tuple[float, float, float, float]:
    """Seconds at P50 and at P99, requests per second that were answered and that were refused."""

    engine = Engine(
        make_backend=backend_maker(folder),
        preprocess=preprocess,
        observer=Silent(),
        clock=time.monotonic,
        random=lambda: 0.5,
        today=lambda: date(2026, 11, 24),
        ledger=Ledger(folder),
    )
    took: list[float] = []
    refused = 0
    async with engine.running():
        await engine.adopt(load(POLICY.format(rows=rows, width=WIDTH).encode()), must_open=True)
        start = time.monotonic() + 1.0  # the limit learns first

        async def ask_again_and_again() -> None:
            nonlocal refused
            while (began := time.monotonic()) < start + seconds:
                try:
                    await engine.infer(
                        InferenceRequest("r", "perceptron", INPUTS, nbytes(INPUTS), "unclassified", began)
                    )
                except RouterError:
                    refused += began >= start
                    await asyncio.sleep(0.05)
                else:
                    if began >= start:
                        took.append(time.monotonic() - began)

        await asyncio.gather(*(ask_again_and_again() for _ in range(clients)))
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100], len(took) / seconds, refused / seconds


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each is measured.")
@click.option("--seconds", default=2.0, show_default=True, help="How long each measurement takes.")
@click.option("--clients", default="1,4,16,64", show_default=True, help="Numbers of clients.")
def main(rounds: int, seconds: float, clients: str) -> None:
    """Measure a model of some milliseconds with runs of its own for each request, and with shared ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_perceptron(folder / "perceptron.onnx")
        click.echo("| clients | runs | P50 | P99 | answered/s | refused/s |\n|---|---|---|---|---|---|")
        for count in map(int, clients.split(",")):
            measured: dict[int, list[tuple[float, ...]]] = {1: [], 0: []}
            for _ in range(rounds):
                for rows, results in measured.items():
                    results.append(uvloop.run(measure(folder, rows, count, seconds)))
            for rows, results in measured.items():
                p50, p99, answered, refused = (statistics.median(column) for column in zip(*results, strict=True))
                click.echo(
                    f"| {count} | {'own' if rows else 'shared'} | {p50 * 1e3:.1f} ms | {p99 * 1e3:.1f} ms "
                    f"| {answered:,.0f} | {refused:,.0f} |"
                )


if __name__ == "__main__":
    main()
