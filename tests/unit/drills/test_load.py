"""The load, sent by its own process to a real server on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from drills.load import Load, LoadFailed, LoadSpec, Stream
from drills.record import Sample
from drills.sender import dues

ROUTE = {
    "policy": "documents",
    "backend": "cloud",
    "degraded": False,
    "attempts": [
        {"backend": "edge", "outcome": "dropped", "error": "backend-failed"},
        {
            "backend": "cloud",
            "outcome": "success",
            "error": None,
            "queue_ms": 0.25,
            "network_ms": 1.0,
            "compute_ms": 0.5,
        },
    ],
    "cost_usd": 2e-6,
    "bytes_out": 256,
}
STATUS = {"models": {"digits": {"targets": [{"backend": "cloud", "available": True, "site": "cloud"}]}}}
STREAM = Stream("primary", 100.0, b'{"model": "digits"}', 0.25)
LEAD_S = 1.0

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def well(_: web.Request) -> web.StreamResponse:
    return web.json_response({"id": "x", "route": ROUTE})


@asynccontextmanager
async def gateway(answer: Answer) -> AsyncIterator[str]:
    """A server on loopback that answers `/infer` like this; its URL."""

    async def status(_: web.Request) -> web.StreamResponse:
        return web.json_response(STATUS)

    app = web.Application()
    app.router.add_post("/infer", answer)
    app.router.add_get("/status", status)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def spec(url: str, *streams: Stream, seconds: float = 1.0) -> LoadSpec:
    return LoadSpec(url, streams or (STREAM,), seconds, time.monotonic(), LEAD_S)


async def send(spec: LoadSpec, folder: Path) -> Load:
    async with Load(spec, folder / "load.jsonl") as load:
        await load.wait()
    return load


async def test_requests_leave_at_a_constant_rate_although_the_server_stalls(tmp_path: Path) -> None:
    stalls_until = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        arrived.append(request.headers["X-Request-Id"])
        if len(arrived) == 100:  # not before the last request has come, which a sender that waits would never send
            stalls_until.set()
        await stalls_until.wait()
        return await well(request)

    arrived: list[str] = []
    async with gateway(stall) as url:
        load = await send(spec(url, replace(STREAM, patience_s=10.0)), tmp_path)
    assert len(load.samples) == len(set(arrived)) == 100
    assert {sample.status for sample in load.samples} == {200}
    assert [sample.due for sample in load.samples] == pytest.approx([LEAD_S + (n + 0.5) / 100 for n in range(100)])
    assert all(sample.due <= sample.sent <= sample.ended for sample in load.samples)
    # The first waited for the last: that wait is in its latency, whatever the sender itself was doing.
    assert load.samples[0].latency >= 0.98


async def test_what_came_back_is_told_in_full(tmp_path: Path) -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        kind = request.headers.get("X-Data-Class")
        seen.append((await request.text(), request.headers.get("X-Deadline-Ms"), kind))
        if kind == "phi":
            problem = {"code": "no-backend-available", "status": 503}
            return web.json_response(problem, status=503, headers={"Retry-After": "2"})
        return await well(request)

    phi = Stream("phi", 10.0, b"{}", 0.1, {"X-Data-Class": "phi"})
    async with gateway(answer) as url:
        load = await send(spec(url, replace(STREAM, per_second=20.0), phi), tmp_path)
    (primary, *_), (refused, *_) = (
        [sample for sample in load.samples if sample.stream == name] for name in ("primary", "phi")
    )
    assert (primary.status, primary.backend, primary.degraded, primary.bytes_out) == (200, "cloud", False, 256)
    assert primary.phases_ms == (0.25, 1.0, 0.5)
    assert primary.attempts == (("edge", "dropped", "backend-failed"), ("cloud", "success", ""))
    assert primary.cost_usd == 2e-6
    assert (refused.status, refused.error, refused.retry_after) == (503, "no-backend-available", 2.0)
    assert {('{"model": "digits"}', "250", None), ("{}", "100", "phi")} == set(seen)
    assert load.sightings
    assert all(sighting.up == {"digits/cloud": True} for sighting in load.sightings)


async def test_whoever_gets_no_answer_gives_up_in_the_end(tmp_path: Path) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async with gateway(never) as url:
        stream = replace(STREAM, per_second=10.0, deadline_s=0.05, patience_s=0.1)
        load = await send(spec(url, stream, seconds=0.5), tmp_path)
    assert {(sample.status, sample.error) for sample in load.samples} == {(0, "TimeoutError")}
    assert all(sample.latency > 0.145 for sample in load.samples)


async def test_nobody_listens(tmp_path: Path) -> None:
    async with gateway(well) as url:
        pass
    load = await send(spec(url, seconds=0.2), tmp_path)
    assert {sample.status for sample in load.samples} == {0}
    assert {sample.error for sample in load.samples} == {"ClientConnectorError"}
    assert all(sighting.up is None for sighting in load.sightings)


async def test_told_to_stop_it_sends_no_more_but_waits_for_what_it_sent(tmp_path: Path) -> None:
    enough = asyncio.Event()

    def saw(samples: object) -> None:
        enough.set()

    async with gateway(well) as url:
        async with Load(spec(url, seconds=600.0), tmp_path / "load.jsonl", saw=saw) as load:
            await enough.wait()
            await load.stop()
        sent = len(load.samples)
    assert 0 < sent < 6_000
    assert {sample.status for sample in load.samples} == {200}


async def test_a_sender_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="no-such-folder"):
        async with Load(spec("http://127.0.0.1:1"), tmp_path / "load", prefix=("env", "-C", "/no-such-folder")) as load:
            await load.wait()


def test_streams_side_by_side_keep_their_rates_and_do_not_meet() -> None:
    other = replace(STREAM, name="phi", per_second=10.0)
    planned = list(dues(spec("", STREAM, other, seconds=3.0)))
    assert [due for due, _ in planned] == sorted(due for due, _ in planned)
    assert [sum(stream is which for _, stream in planned) for which in (STREAM, other)] == [300, 30]
    assert len({round(due, 6) for due, _ in planned}) == 330


@given(st.floats(0.5, 500.0), st.floats(0.5, 20.0), st.integers(1, 50), st.none() | st.integers(0, 2**32 - 1))
def test_bursts_and_random_moments_keep_the_rate(
    per_second: float, seconds: float, burst: int, seed: int | None
) -> None:
    stream = replace(STREAM, per_second=per_second, burst=burst, seed=seed)
    times = [due for due, _ in dues(LoadSpec("", (stream,), seconds, 0.0, LEAD_S))]
    assert len(times) == round(seconds * per_second)
    assert times == sorted(times)
    assert times == [due for due, _ in dues(LoadSpec("", (stream,), seconds, 0.0, LEAD_S))]
    assert all(LEAD_S <= due <= LEAD_S + seconds + burst / per_second for due in times)
    for start in range(0, len(times), burst):
        assert len(set(times[start : start + burst])) == 1


def test_random_moments_are_other_ones_for_another_seed() -> None:
    one, other = (list(dues(LoadSpec("", (replace(STREAM, seed=seed),), 1.0, 0.0))) for seed in (1, 2))
    assert one != other


def test_latency_counts_from_when_it_was_due() -> None:
    assert Sample("primary", "1", 1.0, 1.4, 1.5, 0.25, 200).latency == 0.5
