"""The gateway beside what else serves a model, in one run on one machine: `python -m tests.perf.peers`.

All serve the digits edge model through ONNX Runtime with the same settings, one after another, several rounds in turn,
and are asked for the same row by wrk over 16 keep-alive connections. Servers that do nothing are the floor: they are
measured before, between and after the others in each round, since the machine's speed drifts. CPU time and memory are
those of the whole process tree. Figures are medians; ratios compare with the FastAPI route that does nothing, and with
the Python model server that answers most requests per second, each within its own round.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import click
import httpx

from app.cloud import CloudPorts, TritonProcess
from tests.integration.scenario import alive, children
from tests.peer_servers import Peer, bentoml, hand_written, kserve, litserve, mlserver, rayserve, serving
from tests.perf.hot_path import CONNECTIONS, ROOT, TICKS_PER_S

_PIXELS = [round(0.015 * column, 3) for column in range(64)]
_FACTS = {"data_class": "phi"}
_OIP = "/v2/models/digits/infer"
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Ask:
    """What wrk sends: a GET where there is no body."""

    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def _native(**facts: object) -> Ask:
    return Ask("/infer", json.dumps({"model": "digits", "inputs": {"pixels": [_PIXELS]}} | facts).encode(), _JSON)


def _own() -> Ask:
    """In the form of servers that have one model and no facts."""
    return Ask("/infer", json.dumps({"pixels": [_PIXELS]}).encode(), _JSON)


def _oip_json(**parameters: object) -> Ask:
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": _PIXELS}
    return Ask(_OIP, json.dumps({"inputs": [tensor], "parameters": parameters}).encode(), _JSON)


def _oip_binary(**parameters: object) -> Ask:
    raw = struct.pack("<64f", *_PIXELS)
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps({"inputs": [tensor], "parameters": parameters | {"binary_data_output": True}}).encode()
    return Ask(
        _OIP,
        text + raw,
        {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))},
    )


class Measure(NamedTuple):
    """What one measurement gave: CPU and latencies in seconds, requests per second, resident bytes."""

    cpu_s: float
    rate: float
    p50_s: float
    p99_s: float
    rss_bytes: float


@dataclass(frozen=True, eq=False)
class Subject:
    """One server and one kind of request.

    Args:
        name: As the table has it.
        start: Starts the server; gives its process id and URL.
        ask: What it is asked.
    """

    name: str
    start: Callable[[], AbstractContextManager[tuple[int, str]]]
    ask: Ask


@contextmanager
def _ours(app: str) -> Iterator[tuple[int, str]]:
    """One of the servers of tests.perf.nothing."""
    command = [sys.executable, "-m", "tests.perf.nothing", app]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            yield process.pid, url
        finally:
            process.terminate()


@contextmanager
def _peer(make: Callable[[], Peer]) -> Iterator[tuple[int, str]]:
    peer = make()
    with serving(peer) as pid:
        yield pid, peer.url


@contextmanager
def _triton() -> Iterator[tuple[int, str]]:
    """A real Triton with the edge model in place of its own."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        shutil.copytree(ROOT / "deploy/triton/models/digits", repository / "digits")
        shutil.copyfile(ROOT / "deploy/models/digits-edge.onnx", repository / "digits/1/model.onnx")
        with TritonProcess(CloudPorts(0, 0, 0), repository=repository) as triton:
            yield triton.pid, triton.http_url


BARE = Subject("bare ASGI, does nothing", lambda: _ours("bare"), Ask("/"))
FLOOR = Subject("FastAPI route, does nothing", lambda: _ours("fastapi"), Ask("/"))
MODEL_SERVERS = (
    Subject("MLServer, OIP JSON", lambda: _peer(mlserver), _oip_json()),
    Subject("KServe, OIP JSON", lambda: _peer(kserve), _oip_json()),
    Subject("LitServe", lambda: _peer(litserve), _own()),
    Subject("BentoML", lambda: _peer(bentoml), _own()),
    Subject("Ray Serve", lambda: _peer(rayserve), _own()),
)
OTHERS = (
    Subject("hand-written FastAPI, async def", lambda: _peer(lambda: hand_written("async")), _own()),
    Subject("hand-written FastAPI, def", lambda: _peer(lambda: hand_written("sync")), _own()),
    *MODEL_SERVERS,
)
AND_US = (
    Subject("Triton's HTTP endpoint, OIP JSON", _triton, _oip_json()),
    Subject("Triton's HTTP endpoint, OIP binary", _triton, _oip_binary()),
    Subject("hybrid-router, /infer", lambda: _ours("gateway"), _native(**_FACTS)),
    Subject("hybrid-router, OIP JSON", lambda: _ours("gateway"), _oip_json(**_FACTS)),
    Subject("hybrid-router, OIP binary", lambda: _ours("gateway"), _oip_binary(**_FACTS)),
)
ROUND = (BARE, FLOOR, *OTHERS, BARE, FLOOR, *AND_US, BARE, FLOOR)

Results = dict[Subject, list[Measure]]


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each server is measured.")
@click.option("--seconds", default=3, show_default=True, help="How long each measurement takes.")
@click.option("--quick", is_flag=True, help="One round of one second each: a try, not a result.")
def main(rounds: int, seconds: int, quick: bool) -> None:
    """Measure the gateway beside other ways to serve the same model."""
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk makes the load: apt install wrk")
    if quick:
        rounds, seconds = 1, 1
    measured: list[Results] = []
    with click.progressbar(length=rounds * len(ROUND), label="measuring", file=sys.stderr) as progress:
        for _ in range(rounds):
            measured.append({})
            for subject in ROUND:
                found = _measure(subject, seconds)
                if found is not None:
                    measured[-1].setdefault(subject, []).append(found)
                progress.update(1)
    _report(measured)


def _measure(subject: Subject, seconds: int) -> Measure | None:
    """Starts a server, warms it up and measures it; None if it does not offer what it is to be asked."""
    with subject.start() as (pid, url), tempfile.NamedTemporaryFile("wb", suffix=".lua") as script:
        status = _status(subject.ask, url)
        if status == httpx.codes.NOT_IMPLEMENTED:
            return None
        if status != httpx.codes.OK:
            raise click.ClickException(f"{subject.name} answered {status}")
        script.write(_lua(subject.ask))
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", "--latency", "-s", script.name, f"{url}{subject.ask.path}"]
        subprocess.run([*command, "-d1s"], check=True, stdout=subprocess.DEVNULL)
        tree = [pid, *children(pid)]
        before = _cpu_s(tree)
        output = subprocess.run([*command, f"-d{seconds}s"], check=True, capture_output=True, text=True).stdout
        after = _cpu_s(tree)
        spent = sum(used - before[each] for each, used in after.items())
        if "Non-2xx" in output or "Socket errors" in output:
            raise click.ClickException(f"{subject.name} answered with errors:\n{output}")
        requests = int(_found(r"(\d+) requests in", output))
        return Measure(
            spent / requests, requests / seconds, _latency_s("50%", output), _latency_s("99%", output), _rss_bytes(tree)
        )


def _status(ask: Ask, url: str) -> int:
    with httpx.Client(trust_env=False, timeout=20.0) as http:
        method = "POST" if ask.body else "GET"
        return http.request(method, f"{url}{ask.path}", content=ask.body, headers=ask.headers).status_code


def _lua(ask: Ask) -> bytes:
    """The script that makes wrk ask it; a body's bytes are written as escapes, for it may hold any."""
    lines = [f"wrk.headers['{name}'] = '{value}'" for name, value in ask.headers.items()]
    if ask.body:
        escaped = "".join(f"\\{byte:03d}" for byte in ask.body)
        lines += ["wrk.method = 'POST'", f"wrk.body = '{escaped}'"]
    return "\n".join(lines).encode()


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, f"wrk printed no {pattern}: {text}"
    return match[1]


def _latency_s(quantile: str, output: str) -> float:
    given = _found(rf"\s{quantile}\s+([\d.]+[a-z]+)", output)
    number, unit = float(given.rstrip("umsh")), given.lstrip("0123456789.")
    return number * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def _cpu_s(pids: list[int]) -> dict[int, float]:
    """CPU time of each of the processes that still are."""
    spent = {}
    for pid in alive(pids):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        spent[pid] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return spent


def _rss_bytes(pids: list[int]) -> float:
    """Resident memory that is the processes' own or their share of what several map (PSS)."""
    lines = (line for pid in alive(pids) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return 1024.0 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _report(rounds: list[Results]) -> None:
    click.echo(f"{time.strftime('%Y-%m-%d')}, Python {sys.version.split()[0]}, {len(rounds)} rounds\n")
    click.echo(
        "| server | CPU per request | requests/s | P50 | P99 | memory | to FastAPI | to model server | P99 to its |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for subject in dict.fromkeys(ROUND):
        if any(subject not in results for results in rounds):
            click.echo(f"| {subject.name} | not offered |" + " |" * 7)
            continue
        m = Measure(*(_median([x for results in rounds for x in _column(results[subject], at)]) for at in range(5)))
        against = [(_rate(r[subject]), _rate(r[FLOOR]), *_best(r), _p99(r[subject])) for r in rounds]
        floor, best, tail = (
            _median(ratios)
            for ratios in zip(
                *((rate / floor, rate / best, p99 / best_p99) for rate, floor, best, best_p99, p99 in against),
                strict=True,
            )
        )
        click.echo(
            f"| {subject.name} | {m.cpu_s * 1e6:.0f} µs | {m.rate:,.0f} | {m.p50_s * 1e3:.2f} ms | "
            f"{m.p99_s * 1e3:.2f} ms | {m.rss_bytes / 1e6:.0f} MB | {floor:.2f} | {best:.2f} | {tail:.2f} |"
        )
    for subject in (BARE, FLOOR):
        drift = [[f"{m.rate:,.0f}" for m in results[subject]] for results in rounds]
        click.echo(f"\n{subject.name}, requests/s before, between and after: {'; '.join(map(', '.join, drift))}")


def _best(results: Results) -> tuple[float, float]:
    """Requests per second of the best Python model server, and its P99."""
    best = max(MODEL_SERVERS, key=lambda subject: _rate(results[subject]))
    return _rate(results[best]), _p99(results[best])


def _rate(measures: list[Measure]) -> float:
    return _median([measure.rate for measure in measures])


def _p99(measures: list[Measure]) -> float:
    return _median([measure.p99_s for measure in measures])


def _column(measures: list[Measure], at: int) -> list[float]:
    return [measure[at] for measure in measures]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
