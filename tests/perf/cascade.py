"""The accuracy and the cost of the cascade at each threshold, measured through a real gateway and a real Triton.

`python -m tests.perf.cascade` prints the table of docs/cascade.md and draws docs/cascade.png. For each threshold the
policy file is edited, as an operator would, and all held-out digits are asked in one request; the rows that the edge
model is sure of stay, the others go to the cloud, which `bytes_out` counts.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import matplotlib as mpl
import numpy as np

from app.cloud import CloudPorts, TritonProcess
from tests.gateway_process import GatewayProcess, policy_text

mpl.use("Agg")
import matplotlib.pyplot as plt  # the backend has to be chosen first

ROOT = Path(__file__).parents[2]
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
ROW_BYTES = 64 * 4


@dataclass(frozen=True, slots=True)
class Point:
    """What came of one threshold: rows sent to the cloud, right answers, and dollars per million."""

    threshold: float
    to_cloud: int
    correct: int
    usd_per_million: float


def measure(gateway: GatewayProcess, pixels: np.ndarray, labels: np.ndarray, threshold: float) -> Point:
    """Puts a threshold in force and asks for all digits at once."""
    text = gateway.policy.read_text()
    line = next(line for line in text.splitlines() if "camera: {kind: split" in line)
    edited = text.replace(line, f"  camera: {{kind: split, accept_if: {{confidence: {threshold}}}}}")
    gateway.policy.write_text(edited)
    gateway.wait_until(lambda g: g.http.get("/policy").json()["in_force"]["text"] == edited)
    answer = gateway.infer(model="digits", inputs={"pixels": pixels.tolist()}, data_class="camera", deadline_ms=10_000)
    assert not answer["route"]["degraded"], answer["route"]
    correct = int((np.array(answer["outputs"]["label"]) == labels).sum())
    cost = answer["route"]["cost_usd"] / len(labels) * 1e6
    return Point(threshold, answer["route"]["bytes_out"] // ROW_BYTES, correct, cost)


@click.command()
@click.option("--plot", type=click.Path(path_type=Path), default=ROOT / "docs/cascade.png", help="Where to draw it.")
def main(plot: Path) -> None:
    """Measure the cascade on the held-out digits: print the table, draw the plot."""
    with np.load(ROOT / "deploy/models/digits-holdout.npz") as data:
        pixels, labels = data["pixels"], data["labels"]
    with TritonProcess(CloudPorts(0, 0, 0)) as triton, tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(policy_text(triton.grpc_url))
        with GatewayProcess(policy, {}) as gateway:
            gateway.wait_until(lambda g: len(g.http.get("/readyz").json()["models"]["digits"]) == 2)
            points = [measure(gateway, pixels, labels, threshold) for threshold in THRESHOLDS]
    alone = json.loads((ROOT / "deploy/models/accuracy.json").read_text())["digits"]
    click.echo(
        "| threshold | sent to the cloud | share | right | accuracy | $ per million |\n|---|---|---|---|---|---|"
    )
    for point in points:
        click.echo(
            f"| {point.threshold:g} | {point.to_cloud} of {len(labels)} | {point.to_cloud / len(labels):.1%} "
            f"| {point.correct} | {point.correct / len(labels):.2%} | {point.usd_per_million:.2f} |"
        )
    _draw(points, len(labels), alone["edge"]["correct"], alone["cloud"]["correct"], plot)


def _draw(points: list[Point], total: int, edge: int, cloud: int, plot: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    shares = [point.to_cloud / total * 100 for point in points]
    axes.axvspan(0, 100 / 3, color="0.93", label="under a third of the cloud's calls")
    axes.axhline(cloud / total * 100, color="#0072B2", linestyle="--", label="cloud model alone")
    axes.axhline(edge / total * 100, color="#D55E00", linestyle=":", label="edge model alone")
    axes.plot(shares, [point.correct / total * 100 for point in points], "o-", color="black", label="cascade")
    for point, share in zip(points, shares, strict=True):
        if point.threshold in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999):
            place = (share, point.correct / total * 100)
            axes.annotate(f"{point.threshold:g}", place, xytext=(6, -14), textcoords="offset points")
    axes.set(xlabel="rows sent to the cloud, %", ylabel=f"right answers of {total} held-out digits, %")
    axes.set_title("What the cascade's threshold buys")
    axes.legend(loc="lower right")
    figure.savefig(plot, dpi=110)


if __name__ == "__main__":
    main()
