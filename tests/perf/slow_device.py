"""What policies choose on a slower device: `python -m tests.perf.slow_device`. Needs root, and a cgroup of its own.

The same gateway before the same real Triton, twice: as fast as this machine is, and in a control group that the kernel
gives a Raspberry Pi 5's share of one core. Its edge model is the sample model with work added that takes a Raspberry Pi
tens of milliseconds, the time of a small vision model; its answers are the same. Each policy is asked by a few clients
at once, and the counters say whom it sent them to.

What this is and is not:
- The share is a ratio of published figures: a Raspberry Pi 5 scores 748 in Geekbench 6 on one core
  (github.com/geerlingguy/sbc-reviews, issue 21), a server's core of today around 1900. Whoever knows this machine's
  score says `--share 748/SCORE`.
- Only time on the CPU is scaled. Caches, memory, vector units and network are this machine's; a Pi has less of each.
- The group has that share of one core in all, where a Pi has four: the gateway's threads share what a Pi runs side by
  side. Triton and the clients are outside the group, as they are in reality.
- The kernel takes the CPU away for the rest of a period when the share of it is used up. Work shorter than the share
  of a period runs at full speed if nothing ran before, so that only load and long work are slowed as a Pi slows them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import uvloop
from onnx import helper, numpy_helper

from app.cloud import CloudPorts, TritonProcess
from drills.slow_model import slow_model
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import MODELS, edited, is_up
from tests.perf.keep_alive import connect, post
from tests.perf.through_triton import PIXELS, Ask, Measured, load

PI_5_SCORE = 748
SERVER_SCORE = 1900
PERIOD_US = 5000
LEAST_QUOTA_US = 1000
"""What the kernel takes for the shortest quota."""

POLICIES = ("local-first", "cloud-primary", "fastest", "cheapest")
CLIENTS = 4


class NoControlGroup(click.ClickException):
    """There is no hierarchy of control groups here that this process may use."""


@contextmanager
def control_group(share: float) -> Iterator[Path]:
    """A control group with this share of one core, removed in the end; processes are added by its `cgroup.procs`.

    Raises:
        NoControlGroup: The kernel has none for the CPU, or this process must not make one.
    """
    quota = max(LEAST_QUOTA_US, round(share * PERIOD_US))
    name = f"hybrid-router-slow-{os.getpid()}"
    old, new = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    if (old / "cgroup.procs").exists():
        group = old / name
        limits = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)}
    elif "cpu" in _text(new / "cgroup.subtree_control").split():
        group = new / name
        limits = {"cpu.max": f"{quota} {PERIOD_US}"}
    else:
        raise NoControlGroup("This kernel, or this container, has no control groups for the CPU: nothing was measured.")
    try:
        group.mkdir()
        for file, limit in limits.items():
            (group / file).write_text(limit)
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        raise NoControlGroup(
            f"{group} cannot be made ({error.strerror}): run this as root, not in a container."
        ) from None
    try:
        yield group
    finally:
        group.rmdir()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""


def laborious(model: onnx.ModelProto, turns: int) -> onnx.ModelProto:
    """The digits model with so many turns of work before its answer, which stays what it was."""
    work = slow_model().graph
    for constant in work.initializer:
        if constant.name == "turns":
            constant.CopyFrom(numpy_helper.from_array(np.array(turns, np.int64), "turns"))
    for node in model.graph.node:
        node.output[:] = ["quick_probabilities" if name == "probabilities" else name for name in node.output]
        node.input[:] = ["quick_probabilities" if name == "probabilities" else name for name in node.input]
    model.graph.initializer.extend(work.initializer)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.0, np.float32), "nothing"))
    model.graph.node.extend([helper.make_node("ReduceMean", ["pixels"], ["vector"], axes=[0], keepdims=1), *work.node])
    model.graph.node.append(helper.make_node("Mul", ["score", "nothing"], ["no_score"]))
    model.graph.node.append(helper.make_node("Add", ["quick_probabilities", "no_score"], ["probabilities"]))
    onnx.checker.check_model(model)
    return model


def policy_file(cloud_url: str) -> str:
    """The default policy file before this cloud, where each policy has the data class of its own name."""

    def change(content: dict[str, Any]) -> None:
        content["backends"]["edge"]["price"]["device"]["inferences_per_month"] = 64_800_000  # a device that is busy
        content["models"] = {"digits": content["models"]["digits"]}
        del content["models"]["digits"]["image"], content["models"]["digits"]["variants"]["cloud"]["encoded_image"]
        content["policies"] = {name: {"kind": name} for name in POLICIES}
        content["routes"] = [{"data_class": name, "policy": name} for name in POLICIES] + [{"policy": POLICIES[0]}]
        content["residency"] = {name: {} for name in POLICIES}
        del content["budgets"]

    return edited(policy_text(cloud_url), change)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one policy's requests: seconds at P50 and P99, answers per second, and the share from the edge."""

    p50_s: float
    p99_s: float
    per_second: float
    edge: float


def measure(gateway: GatewayProcess, policy: str, seconds: float) -> Outcome:
    """Asks by this policy with a few clients at once."""
    request = post("/infer", json.dumps(_body(policy)))
    uvloop.run(_ask(gateway, request, 1.0))  # until the estimates have settled
    before = _answers(gateway, policy)
    asked = uvloop.run(_ask(gateway, request, seconds))
    edge, cloud = (after - earlier for after, earlier in zip(_answers(gateway, policy), before, strict=True))
    return Outcome(asked.p50_s, asked.p99_s, asked.rate, edge / (edge + cloud))


def _body(policy: str) -> dict[str, Any]:
    return {"model": "digits", "inputs": {"pixels": [PIXELS]}, "data_class": policy, "deadline_ms": 2000}


async def _ask(gateway: GatewayProcess, request: bytes, seconds: float) -> Measured:
    connections = [await connect(gateway.url) for _ in range(CLIENTS)]
    askers: list[Ask] = [lambda connection=connection: connection.ask(request) for connection in connections]  # type: ignore[misc]
    try:
        return await load(askers, seconds, gateway.process.pid)
    finally:
        for connection in connections:
            connection.close()


def _answers(gateway: GatewayProcess, policy: str) -> tuple[float, float]:
    edge, cloud = (
        gateway.metric("hybrid_router_requests_total", policy=policy, backend=backend) for backend in ("edge", "cloud")
    )
    return edge, cloud


def _as_on(device: str, policy: Path, models: Path, within: tuple[str, ...], seconds: float) -> None:
    with GatewayProcess(policy, {"HYBRID_ROUTER_MODELS_DIR": str(models)}, within=within) as gateway:
        gateway.wait_until(is_up, 60)
        outcomes = {name: measure(gateway, name, seconds) for name in POLICIES}
        click.echo(f"\n{device}\n\n| policy | answered by the edge | P50 | P99 | answers/s |\n|---|---|---|---|---|")
        for name, it in outcomes.items():
            times = f"{it.p50_s * 1e3:.1f} ms | {it.p99_s * 1e3:.1f} ms"
            click.echo(f"| {name} | {it.edge:.0%} | {times} | {it.per_second:,.0f} |")
        click.echo("\nWhy, in the gateway's words when the load is over:")
        for name in POLICIES:
            click.echo(f"- {name}: {gateway.infer(**_body(name))['route']['reason']}")


@click.command()
@click.option("--share", default=f"{PI_5_SCORE}/{SERVER_SCORE}", show_default=True, help="Of one core here.")
@click.option("--turns", default=4000, show_default=True, help="Work of the edge model; 4000 take a Pi about 20 ms.")
@click.option("--seconds", default=4.0, show_default=True, help="How long each policy is asked.")
def main(share: str, turns: int, seconds: float) -> None:
    """Measure each policy on this machine, and with a Raspberry Pi 5's share of it."""
    part = float(Fraction(share.replace(" ", "")))
    if not 0 < part <= 1:
        raise click.BadParameter(f"a share is between 0 and 1, not {share}")
    with control_group(part) as group, TritonProcess(CloudPorts(0, 0, 0)) as triton, _folder(turns) as models:
        policy = models / "policy.yaml"
        policy.write_text(policy_file(triton.grpc_url))
        _as_on("This machine", policy, models, (), seconds)
        join = ("sh", "-ec", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(group))
        _as_on(f"{part:.0%} of one of its cores, as a Raspberry Pi 5 has", policy, models, join, seconds)


@contextmanager
def _folder(turns: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(laborious(onnx.load(str(MODELS / "digits-edge.onnx")), turns), str(Path(folder) / "digits-edge.onnx"))
        yield Path(folder)


if __name__ == "__main__":
    main()
