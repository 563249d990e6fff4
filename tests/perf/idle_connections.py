"""Whether ten thousand idle connections disturb the one that works: `python -m tests.perf.idle_connections`.

One connection asks the edge model again and again: before the others come, while they are there, and after they have
gone. They are connected and say nothing; one that was answered once is closed by the server after some seconds.
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import click
import uvloop

from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import resident_bytes
from tests.perf.keep_alive import connect, post
from tests.perf.process import cpu_s

REQUEST = post("/infer", json.dumps({"model": "digits", "inputs": {"pixels": [[0.5] * 64]}, "data_class": "phi"}))
PER_ADDRESS = 20_000
"""Connections from one source address to one port, of which an address has some 28,000."""

SPARE_FILES = 500
"""Descriptors that either process needs besides."""


async def work(url: str, seconds: float) -> tuple[float, float]:
    """Asks again and again over one connection. Returns seconds at P50 and at P99."""
    connection = await connect(url)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await connection.ask(REQUEST)
        took.append(time.perf_counter() - began)
    connection.close()
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100]


def hold(url: str, count: int, held: ExitStack) -> list[socket.socket]:
    """Opens so many connections and says nothing, from as many addresses of this machine as it takes."""
    parts = urlsplit(url)
    opened = []
    for number in range(count):
        idle = held.enter_context(socket.socket())
        idle.bind((f"127.0.0.{2 + number // PER_ADDRESS}", 0))
        idle.connect((parts.hostname, parts.port))
        opened.append(idle)
    return opened


def still_open(idle: list[socket.socket]) -> int:
    """How many the server has not closed."""
    count = 0
    for connection in idle:
        try:
            connection.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            count += 1
    return count


def may_open(count: int) -> int:
    """Lets this process, and those that it starts, open so many files, or as many as may be. Returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


@click.command()
@click.option("--connections", default=10_000, show_default=True, help="Idle connections.")
@click.option("--rounds", default=5, show_default=True, help="Measurements before, during and after.")
@click.option("--seconds", default=3.0, show_default=True, help="How long each measurement takes.")
def main(connections: int, rounds: int, seconds: float) -> None:
    """Measure one working connection beside many idle ones."""
    if may_open(connections) < connections + SPARE_FILES:
        raise click.ClickException(f"{connections} connections need more open files than `ulimit -Hn` allows")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(policy_text("grpc://127.0.0.1:1"))
        gateway = held.enter_context(GatewayProcess(policy, {}))
        gateway.wait_until(lambda g: g.http.get("/readyz").status_code == 200)
        pid = gateway.process.pid
        uvloop.run(work(gateway.url, 1))
        click.echo("| idle connections | P50 | P99 | RSS | CPU at rest |\n|---|---|---|---|---|")
        before = _measure("none yet", gateway.url, pid, rounds, seconds)
        with ExitStack() as holding:
            idle = hold(gateway.url, connections, holding)
            beside = _measure(f"{connections:,}", gateway.url, pid, rounds, seconds)
            left = still_open(idle)
        _measure("none any more", gateway.url, pid, rounds, seconds)
        click.echo(
            f"\n{left:,} of {connections:,} were open to the end; {(beside - before) / connections / 1e3:.1f} kB each."
        )


def _measure(name: str, url: str, pid: int, rounds: int, seconds: float) -> int:
    """One line of the table. Returns resident bytes."""
    measured = [uvloop.run(work(url, seconds)) for _ in range(rounds)]
    p50, p99 = (statistics.median(column) for column in zip(*measured, strict=True))
    spent, resident = cpu_s(pid), resident_bytes(pid)
    time.sleep(1)
    at_rest = cpu_s(pid) - spent
    click.echo(f"| {name} | {p50 * 1e6:.0f} µs | {p99 * 1e6:.0f} µs | {resident / 1e6:.0f} MB | {at_rest:.1%} |")
    return resident


if __name__ == "__main__":
    main()
