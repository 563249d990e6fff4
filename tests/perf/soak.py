"""Whether a gateway that runs for long costs the same in the end as at the start: `python -m tests.perf.soak`.

A gateway serves a constant rate of requests for ten minutes, and once a minute it is looked at: CPU time per request,
resident memory, tasks of its event loop, file descriptors, threads. Before that, how long it takes from nothing to the
first ready answer, and how much memory it has then. `python -m tests.perf.soak serve` is the gateway that is looked at:
the real one, with one path more that says how many tasks there are.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import uvicorn
import uvloop

from app.http_protocol import http_protocol
from tests.gateway_process import ROOT, GatewayProcess, policy_text
from tests.integration.scenario import open_files, resident_bytes
from tests.perf.keep_alive import connect, post
from tests.perf.nothing import AnnouncingServer, gateway
from tests.perf.process import cpu_s

REQUEST = post("/infer", json.dumps({"model": "digits", "inputs": {"pixels": [[0.5] * 64]}, "data_class": "phi"}))
CONNECTIONS = 8
STARTS = 5


def with_tasks(app: Any) -> Any:
    """The application, with `/tasks`: how many tasks the event loop has."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/tasks":
            await app(scope, receive, send)
            return
        body = str(len(asyncio.all_tasks())).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer


@contextmanager
def served() -> Iterator[tuple[int, str]]:
    """Such a gateway in a process of its own: its id and its URL."""
    command = [sys.executable, "-m", "tests.perf.soak", "serve"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.terminate()


async def send(url: str, rate: float, seconds: float) -> int:
    """Sends a constant rate of requests, over a few connections in turn. Returns how many.

    One that is late, because the one before it was, is sent at once, so that the number stays the same.
    """
    connections = [await connect(url) for _ in range(CONNECTIONS)]
    started, count = time.perf_counter(), int(rate * seconds)

    async def go_on(first: int) -> None:
        for number in range(first, count, CONNECTIONS):
            await asyncio.sleep(started + number / rate - time.perf_counter())
            await connections[first].ask(REQUEST)

    await asyncio.gather(*map(go_on, range(CONNECTIONS)))
    for connection in connections:
        connection.close()
    return count


def look(pid: int, url: str) -> list[str]:
    """Resident memory, tasks, file descriptors, threads."""
    tasks = httpx.get(f"{url}/tasks", trust_env=False).text
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return [f"{resident_bytes(pid) / 1e6:.1f} MB", tasks, str(open_files(pid)), str(threads)]


def start_once() -> tuple[float, float]:
    """Seconds from nothing to ready, and resident megabytes then. The cloud is not there."""
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(policy_text("grpc://127.0.0.1:1"))
        began = time.perf_counter()
        with GatewayProcess(policy, {}) as process:
            process.wait_until(lambda g: g.http.get("/readyz").status_code == 200)
            return time.perf_counter() - began, resident_bytes(process.process.pid) / 1e6


@click.group(invoke_without_command=True)
@click.option("--minutes", default=10, show_default=True, help="How long the load lasts.")
@click.option("--minute", default=60.0, show_default=True, help="Seconds that a minute has; less for a rehearsal.")
@click.option("--rate", default=200.0, show_default=True, help="Requests per second.")
@click.pass_context
def main(context: click.Context, minutes: int, minute: float, rate: float) -> None:
    """Measure cold starts, and a gateway over minutes of constant load."""
    if context.invoked_subcommand is not None:
        return
    starts = [start_once() for _ in range(STARTS)]
    ready_s, resident = (statistics.median(column) for column in zip(*starts, strict=True))
    click.echo(f"From nothing to ready: {ready_s:.2f} s, with {resident:.0f} MB (medians of {STARTS}).\n")
    click.echo(f"{rate:g} requests/s, {minute:g} s a row:\n")
    click.echo("| minute | CPU per request | RSS | tasks | descriptors | threads |\n|---|---|---|---|---|---|")
    with served() as (pid, url):
        uvloop.run(send(url, rate, 2))
        for number in range(1, minutes + 1):
            before = cpu_s(pid)
            count = uvloop.run(send(url, rate, minute))
            spent = (cpu_s(pid) - before) / count
            click.echo(f"| {number} | {spent * 1e6:.0f} µs | {' | '.join(look(pid, url))} |")


@main.command()
def serve() -> None:
    """Be the gateway that is looked at, until SIGTERM."""
    whole = gateway()
    config = uvicorn.Config(
        with_tasks(whole.http),
        port=0,
        loop="uvloop",
        http=http_protocol(whole.fast_path),
        ws="none",
        access_log=False,
        log_level="warning",
    )
    AnnouncingServer(config).run()


if __name__ == "__main__":
    main()
