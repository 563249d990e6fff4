"""What a request costs the whole process, beside servers that do nothing: `python -m tests.perf.hot_path`.

All servers run under uvicorn with the same settings, one after another, several rounds in turn, and are driven by wrk
over 16 keep-alive connections. What counts is CPU time of the server process per request, from /proc: throughput on a
shared machine depends on who else is running. Figures are medians; ratios compare with the FastAPI route that does
nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 16

PIXELS = [round(0.015 * column, 3) for column in range(64)]
BODIES = {
    "native": json.dumps({"model": "digits", "inputs": {"pixels": [PIXELS]}, "data_class": "phi"}),
    "oip": json.dumps(
        {
            "inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": PIXELS}],
            "parameters": {"data_class": "phi"},
        }
    ),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """One server and one kind of request: a name, what uvicorn runs, the path, and the body if it is a POST."""

    name: str
    app: str
    path: str
    body: str | None = None


SUBJECTS = (
    Subject("bare ASGI, does nothing", "tests.perf.nothing:bare", "/"),
    Subject("FastAPI route, does nothing", "tests.perf.nothing:fastapi", "/"),
    Subject("hybrid-router /infer (JSON, edge model)", "tests.perf.nothing:gateway", "/infer", BODIES["native"]),
    Subject(
        "hybrid-router OIP (JSON, edge model)",
        "tests.perf.nothing:gateway",
        "/v2/models/digits/infer",
        BODIES["oip"],
    ),
)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each server is measured.")
@click.option("--seconds", default=3, show_default=True, help="How long each measurement takes.")
def main(rounds: int, seconds: int) -> None:
    """Measure CPU per request and requests per second of the inference routes, beside servers that do nothing."""
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk makes the load: apt install wrk")
    measured: dict[Subject, list[tuple[float, float, float]]] = {subject: [] for subject in SUBJECTS}
    with click.progressbar(length=rounds * len(SUBJECTS), label="measuring", file=sys.stderr) as progress:
        for _ in range(rounds):
            for subject in SUBJECTS:
                measured[subject].append(_measure(subject, seconds))
                progress.update(1)
    _report(measured)


def _measure(subject: Subject, seconds: int) -> tuple[float, float, float]:
    """CPU seconds per request, requests per second, and resident megabytes."""
    with server(subject) as (pid, url), tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if subject.body is not None:
            script.write(
                f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = {subject.body!r}\n"
            )
            script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", "-s", script.name, f"{url}{subject.path}"]
        subprocess.run([*command, "-d1s"], check=True, stdout=subprocess.DEVNULL)
        before = _cpu_s(pid)
        output = subprocess.run([*command, f"-d{seconds}s"], check=True, capture_output=True, text=True).stdout
        spent = _cpu_s(pid) - before
        if "Non-2xx" in output or "Socket errors" in output:
            raise click.ClickException(f"{subject.name} answered with errors:\n{output}")
        requests = int(next(line.split()[0] for line in output.splitlines() if "requests in" in line))
        return spent / requests, requests / seconds, _rss_mb(pid)


@contextmanager
def server(subject: Subject) -> Iterator[tuple[int, str]]:
    """Runs a server; gives its process id and its URL."""
    command = [sys.executable, "-m", "tests.perf.nothing", subject.app.partition(":")[2]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            yield process.pid, url
        finally:
            process.terminate()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _report(measured: dict[Subject, list[tuple[float, float, float]]]) -> None:
    medians = {
        subject: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for subject, rows in measured.items()
    }
    floor = medians[SUBJECTS[1]]
    click.echo(f"{time.strftime('%Y-%m-%d')}, Python {sys.version.split()[0]}, {os.cpu_count()} cores\n")
    click.echo("| server | CPU per request | ratio | requests/s | ratio | RSS |\n|---|---|---|---|---|---|")
    for subject, (cpu, rate, rss) in medians.items():
        click.echo(
            f"| {subject.name} | {cpu * 1e6:.0f} µs | {cpu / floor[0]:.2f} "
            f"| {rate:,.0f} | {rate / floor[1]:.2f} | {rss:.0f} MB |"
        )


if __name__ == "__main__":
    main()
