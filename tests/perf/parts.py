"""What the parts of a request cost in a loop of their own, without a socket: `python -m tests.perf.parts`.

They do not add up to what `hot_path` measures: between two system calls the caches lose the code and the data of
whatever ran before. They say where to look.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import uvloop

from app.codec import native, oip
from app.metrics import Metrics
from backends.image import preprocess
from backends.registry import backend_maker
from policies.loader import load
from router.engine import Engine
from router.ledger import Ledger
from router.types import InferenceRequest
from tests.perf.hot_path import BODIES, PIXELS, ROOT

JSON = {b"content-type": b"application/json"}
TURNS = 2000


def _binary() -> tuple[bytes, dict[bytes, bytes]]:
    """A request of the same row with its tensor raw, and its headers."""
    raw = struct.pack("<64f", *PIXELS)
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps({"inputs": [tensor], "parameters": {"data_class": "phi", "binary_data_output": True}}).encode()
    return text + raw, {oip.HEADER_LENGTH: b"%d" % len(text)}


async def measure(rounds: int) -> dict[str, float]:
    """Seconds of each part, the least of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            make_backend=backend_maker(ROOT / "deploy/models"),
            preprocess=preprocess,
            observer=Metrics(),
            clock=time.monotonic,
            random=random.random,
            today=lambda: datetime.now(UTC).date(),
            ledger=Ledger(Path(folder)),
        )
        async with engine.running():
            await engine.adopt(load((ROOT / "policies/samples/default.yaml").read_bytes()), must_open=False)
            return await _parts(engine, rounds)


async def _parts(engine: Engine, rounds: int) -> dict[str, float]:
    body, (binary, headers) = BODIES["native"].encode(), _binary()
    oip_body = BODIES["oip"].encode()

    def read() -> InferenceRequest:
        return native.decode(body, JSON, b"", engine, time.monotonic())

    def read_oip(content: bytes, said: dict[bytes, bytes]) -> tuple[InferenceRequest, oip.Wanted]:
        return oip.decode(content, said, b"", "digits", None, engine, time.monotonic())

    request, (_, plain), (_, raw) = read(), read_oip(oip_body, JSON), read_oip(binary, headers)
    response = await engine.infer(request)

    async def infer() -> None:
        request.arrived = time.monotonic()
        await engine.infer(request)

    return {
        "decode `/infer`: JSON, tensor, checks, facts": _least(read, rounds),
        "decode OIP, JSON": _least(lambda: read_oip(oip_body, JSON), rounds),
        "decode OIP, binary": _least(lambda: read_oip(binary, headers), rounds),
        "engine with the model's run, metrics and a turn of the loop": await _least_awaited(infer, rounds),
        "encode `/infer`": _least(lambda: native.encode(response), rounds),
        "encode OIP, JSON": _least(lambda: oip.encode(response, plain), rounds),
        "encode OIP, binary": _least(lambda: oip.encode(response, raw), rounds),
    }


def _least(part: Callable[[], object], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(TURNS):
            part()
        took.append((time.perf_counter() - began) / TURNS)
    return min(took)


async def _least_awaited(part: Callable[[], Awaitable[None]], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(TURNS):
            await part()
        took.append((time.perf_counter() - began) / TURNS)
    return min(took)


@click.command()
@click.option("--rounds", default=9, show_default=True, help=f"How often each part is run {TURNS} times.")
def main(rounds: int) -> None:
    """Measure the parts of a request, each in a loop of its own."""
    click.echo("| part | µs |\n|---|---|")
    for part, seconds in uvloop.run(measure(rounds)).items():
        click.echo(f"| {part} | {seconds * 1e6:.1f} |")


if __name__ == "__main__":
    main()
