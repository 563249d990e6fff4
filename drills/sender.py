"""The process that sends a load: `python -m drills.sender RESULTS`, with the spec as JSON on standard input.

A request leaves when it is due, however many are still under way, over a pooled connection or a new one. Latency
counts from when it was due, so a sender or a server that stalls cannot hide what its users would have waited
(coordinated omission). SIGTERM or the end of standard input ends the sending; what was sent is still waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import itertools
import math
import random
import resource
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import msgspec
import uvloop

from drills.alarm import Alarm
from drills.load import Line, LoadSpec, Stream
from drills.record import Sample, Sighting

# Servers close idle connections, uvicorn after 5 s. A request that leaves in that very moment would count as failed.
IDLE_CONNECTION_S = 2.0
WRITE_EVERY_S = 0.1
LOOK_TIMEOUT_S = 1.0


class Attempt(msgspec.Struct):
    """An attempt as a route reports it; other members are of no interest here."""

    backend: str
    outcome: str
    error: str | None = None
    queue_ms: float = 0.0
    network_ms: float = 0.0
    compute_ms: float = 0.0


class Route(msgspec.Struct):
    """The route of an answer."""

    backend: str
    degraded: bool
    attempts: list[Attempt]
    cost_usd: float
    bytes_out: int


class Answer(msgspec.Struct):
    """The body of a 200."""

    route: Route


class Problem(msgspec.Struct):
    """The body of anything else."""

    code: str = ""


class Target(msgspec.Struct):
    """A model's backend in `/status`."""

    backend: str
    available: bool


class Model(msgspec.Struct):
    """A model in `/status`."""

    targets: list[Target]


class Status(msgspec.Struct):
    """The body of `/status`."""

    models: dict[str, Model]


_answer = msgspec.json.Decoder(Answer)
_problem = msgspec.json.Decoder(Problem)
_status = msgspec.json.Decoder(Status)


class Sender:
    """Sends one load.

    Args:
        spec: What to send.
        session: The client.
        results: Where lines go.
    """

    def __init__(self, spec: LoadSpec, session: aiohttp.ClientSession, results: BinaryIO) -> None:
        self._spec = spec
        self._session = session
        self._results = results
        self._lines: list[Line] = []
        self._run = secrets.token_hex(3)
        self._infer = f"{spec.url}/infer"
        self._status = f"{spec.url}/status"
        self._headers = {
            stream.name: {
                "Content-Type": "application/json",
                "X-Deadline-Ms": f"{stream.deadline_s * 1000:g}",
                **spec.headers,
                **stream.headers,
            }
            for stream in spec.streams
        }

    async def send(self) -> None:
        """Sends until the end; cancelled, it sends no more. Either way it waits for the answers."""
        writer = asyncio.create_task(self._write())
        looker = asyncio.create_task(self._look())
        under_way: set[asyncio.Task[None]] = set()
        with Alarm() as alarm, contextlib.suppress(asyncio.CancelledError):
            for number, (due, stream) in enumerate(dues(self._spec)):
                await alarm.at(self._spec.zero + due)
                task = asyncio.create_task(self._ask(stream, due, f"{self._run}-{stream.name}-{number:x}"))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await alarm.at(self._spec.zero + self._spec.begins + self._spec.seconds)
        while under_way:
            await asyncio.wait(under_way)
        for task in (looker, writer):
            task.cancel()
        self._flush()

    def _now(self) -> float:
        return time.monotonic() - self._spec.zero

    async def _ask(self, stream: Stream, due: float, id: str) -> None:
        sent = self._now()
        left = due + stream.deadline_s + stream.patience_s - sent
        status, body, retry_after, error = 0, b"", None, ""
        try:
            async with (
                asyncio.timeout(left),
                self._session.post(
                    self._infer, data=stream.body, headers={**self._headers[stream.name], "X-Request-Id": id}
                ) as response,
            ):
                body = await response.read()
                status, retry_after = response.status, _seconds(response.headers.get("Retry-After"))
        except (aiohttp.ClientError, OSError) as caught:  # a TimeoutError is an OSError
            error = type(caught).__name__
        ended = self._now()
        said: dict[str, Any] = {"error": error}
        if status == 200:
            said = _route(body)
        elif status:
            said = {"error": _code(body) or f"http-{status}"}
        sample = Sample(stream.name, id, due, sent, ended, stream.deadline_s, status, retry_after=retry_after, **said)
        self._lines.append(Line(sample=sample))

    async def _look(self) -> None:
        """Looks at the gateway's `/status` at a constant rate, without waiting for the look before."""
        if not self._spec.looks_per_second:
            return
        looks: set[asyncio.Task[None]] = set()
        for number in itertools.count():
            wait = self._spec.begins + number / self._spec.looks_per_second - self._now()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._look_once())
            looks.add(task)
            task.add_done_callback(looks.discard)

    async def _look_once(self) -> None:
        up = None
        try:
            async with (
                asyncio.timeout(LOOK_TIMEOUT_S),
                self._session.get(self._status, headers=self._spec.headers) as response,
            ):
                body = await response.read()
                if response.status == 200:
                    up = {
                        f"{name}/{target.backend}": target.available
                        for name, model in _status.decode(body).models.items()
                        for target in model.targets
                    }
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError):
            up = None
        self._lines.append(Line(sighting=Sighting(self._now(), up)))

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        self._results.write(_encoder.encode_lines(lines))
        self._results.flush()


_encoder = msgspec.json.Encoder()


def dues(spec: LoadSpec) -> Iterator[tuple[float, Stream]]:
    """When each request is due, in order. Streams are set off by half their own interval, so that they do not meet."""
    return heapq.merge(*(_dues_of(stream, spec) for stream in spec.streams), key=lambda due: due[0])


def _dues_of(stream: Stream, spec: LoadSpec) -> Iterator[tuple[float, Stream]]:
    count = round(spec.seconds * stream.per_second)
    moments = math.ceil(count / stream.burst)
    if stream.seed is None:
        at = ((number + 0.5) * stream.burst / stream.per_second for number in range(moments))
    else:
        # Given how many there are, the moments of a Poisson process are as many independent uniform ones.
        randomness = random.Random(stream.seed)
        at = (due for due in sorted(randomness.random() * spec.seconds for _ in range(moments)))
    for due in itertools.islice((due for due in at for _ in range(stream.burst)), count):
        yield spec.begins + due, stream


def _route(body: bytes) -> dict[str, Any]:
    try:
        route = _answer.decode(body).route
    except msgspec.MsgspecError:
        return {"error": "not-an-answer"}
    return {
        "backend": route.backend,
        "degraded": route.degraded,
        "attempts": tuple((attempt.backend, attempt.outcome, attempt.error or "") for attempt in route.attempts),
        "cost_usd": route.cost_usd,
        "bytes_out": route.bytes_out,
        "phases_ms": _phases(route),
    }


def _phases(route: Route) -> tuple[float, float, float]:
    for attempt in reversed(route.attempts):  # in a cascade an earlier success was not good enough
        if attempt.backend == route.backend and attempt.outcome == "success":
            return attempt.queue_ms, attempt.network_ms, attempt.compute_ms
    return 0.0, 0.0, 0.0


def _code(body: bytes) -> str:
    try:
        return _problem.decode(body).code
    except msgspec.MsgspecError:
        return ""


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else float(header)
    except ValueError:  # it may also be a date, which a gateway of ours never sends
        return None


async def _main(spec: LoadSpec, results: Path) -> None:
    with results.open("ab", buffering=0) as file:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            auto_decompress=False,
        ) as session:
            sending = asyncio.create_task(Sender(spec, session, file).send())
            loop = asyncio.get_running_loop()

            def stop() -> None:
                """Once: a second time would not wait for the answers."""
                loop.remove_reader(sys.stdin)
                loop.add_signal_handler(signal.SIGTERM, lambda: None)
                sending.cancel()

            loop.add_reader(sys.stdin, stop)
            loop.add_signal_handler(signal.SIGTERM, stop)
            await sending


def main() -> None:
    """Reads the spec, sends the load."""
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=LoadSpec)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # a collection would delay what is due; nothing here is kept in cycles for long
    uvloop.run(_main(spec, Path(sys.argv[1])))


if __name__ == "__main__":
    main()
