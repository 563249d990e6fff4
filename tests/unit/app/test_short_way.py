"""The short way does what the long way does where things go wrong, or stop in the middle."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.codec import native as codec
from router.engine import Engine
from router.generation import World
from router.plan import Plan
from router.ports import Policy
from router.snapshot import Snapshot
from router.types import Facts, InferenceResponse
from tests.unit.app.doors import house, two_models
from tests.unit.app.wire import END, connected, cut, eventually, in_real_time, native, post, talk
from tests.unit.standins import answer

BOTH = pytest.mark.parametrize("short", [True, False], ids=["short way", "long way"])


@dataclass(frozen=True)
class NoPlan(Policy):
    """Somebody's policy that breaks its contract."""

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        return None  # type: ignore[return-value]


@BOTH
@in_real_time
async def test_what_nobody_foresaw_is_a_500_and_harms_no_other_request_of_its_turn(short: bool) -> None:
    async with house() as of, of.door(short=short) as door:
        policies = {**two_models().policies, "slow": NoPlan()}
        await of.lab.engine.adopt(replace(two_models(), policies=policies), must_open=False)
        async with connected(door.port) as a, connected(door.port) as b, connected(door.port) as c:
            for client in (a, b, c):
                await client.ask(post(native(1.0)))
            for client, model in ((a, "quick"), (b, "slow"), (c, "quick")):
                client.send(post(native(1.0, model)))
            assert [(await client.answer()).status for client in (a, b, c)] == [200, 500, 200]
            assert (await b.ask(post(native(1.0, "slow")))).status == 500, "alone"
        assert len(of.errors) == 2


@BOTH
@in_real_time
async def test_of_two_keys_the_first_counts(short: bool) -> None:
    key = "the right key, and a long one"
    async with house(key) as of, of.door(short=short) as door, connected(door.port) as client:
        twice = [f"Authorization: Bearer {given}" for given in ("wrong", key)]
        assert (await client.ask(post(native(1.0), *twice))).status == 401


@BOTH
@in_real_time
async def test_a_slow_request_behind_a_quick_one_in_the_same_packet_outlives_the_idle_time(short: bool) -> None:
    async with house() as of, of.door(short=short, keep_alive_s=0.2) as door, connected(door.port) as client:
        of.lab.cloud.infer = answer(after=0.5)
        client.send(post(native(1.0)) + post(native(2.0, "slow"), path="/infer?"))
        assert (await client.answer()).score() == 1.0
        assert (await client.answer()).score() == 2.0


@BOTH
@in_real_time
async def test_a_body_that_stops_coming_behind_a_quick_request_is_a_408(short: bool) -> None:
    async with (
        house(body_timeout_s=0.5) as of,
        of.door(short=short, keep_alive_s=0.2) as door,
        connected(door.port) as client,
    ):
        client.send(post(native(1.0)) + cut(post(native(2.0)), 5)[0])
        assert (await client.answer()).score() == 1.0
        assert (await client.answer()).status == 408


@BOTH
@in_real_time
async def test_a_request_whose_body_is_on_its_way_when_the_server_ends_is_answered(short: bool) -> None:
    async with house() as of, of.door(short=short) as door, connected(door.port) as client:
        head, body = cut(post(native(1.0)))
        client.send(head)
        await asyncio.sleep(0.02)
        for connection in list(door.state.connections):
            assert isinstance(connection, HttpToolsProtocol)
            connection.shutdown()
        client.send(body)
        found = await client.answer()
        assert (found.score(), found.headers["connection"]) == (1.0, "close")


@BOTH
@in_real_time
async def test_a_fragment_is_not_part_of_the_path(short: bool) -> None:
    async with house() as of, of.door(short=short) as door:
        found, _ = await talk(door.port, [post(b"{}", path="/v2/models/quick#/infer"), END])
        assert b"/v2/models/quick" in found.body, "there is no such route; it is not that there is no model 'quick#'"


@BOTH
@in_real_time
async def test_a_deadline_counts_from_when_the_head_was_there(short: bool) -> None:
    async with house() as of, of.door(short=short) as door, connected(door.port) as client:
        head, body = cut(post(native(1.0), "X-Deadline-Ms: 40"))
        client.send(head)
        await asyncio.sleep(0.08)
        client.send(body)
        assert (await client.answer()).status == 504


@BOTH
@in_real_time
async def test_who_is_cut_off_at_the_end_of_the_drain_time_is_told(short: bool) -> None:
    async with house() as of, of.door(short=short) as door, connected(door.port) as client:
        of.lab.cloud.infer = answer(after=60.0)
        client.send(post(native(1.0, "slow")))
        await eventually(lambda: len(of.lab.cloud.calls) == 1)
        for task in list(door.state.tasks):
            task.cancel()
        assert [found.status for found in await client.rest()] == [503 if short else 500]


@in_real_time
async def test_an_idle_connection_keeps_nothing_of_its_last_request() -> None:
    async with house() as of, of.door() as door, connected(door.port) as client:
        await client.ask(post(b" " * 3000 + native(1.0)))
        (connection,) = door.state.connections
        assert not getattr(connection, "_body", b"")
        assert not getattr(getattr(connection, "cycle", None), "body", b"")


@in_real_time
async def test_who_sends_without_reading_is_not_read_for_ever() -> None:
    async with house() as of, of.door() as door, connected(door.port) as client:
        of.lab.cloud.infer = answer(after=0.001)
        client.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(150):
            client.send(post(native(1.0, "slow")) * 100)
            await asyncio.sleep(0.002)
        (connection,) = door.state.connections
        assert isinstance(connection, HttpToolsProtocol)
        assert len(connection.pipeline) < 5000, "half a megabyte's worth, rather than all"


@in_real_time
async def test_a_request_that_was_begun_keeps_its_generation_open() -> None:
    """As `FastPath` has it: begun in one turn, gone on with in the next; a policy file takes over in between."""
    async with house() as of:
        engine: Engine = of.lab.engine
        of.lab.cloud.infer = answer(after=0.2)
        request = codec.decode(native(1.0, "slow"), {}, b"", engine, time.monotonic())
        going: list[asyncio.Task[InferenceResponse]] = []
        planner = engine._planner
        adopt = planner.adopt

        def begin_and_adopt(world: World) -> None:
            (begun,) = engine.infer_inline([request])
            going.append(asyncio.ensure_future(engine.go_on(begun)))  # type: ignore[arg-type]
            adopt(world)

        planner.adopt = begin_and_adopt  # type: ignore[method-assign]
        both = two_models()
        await engine.adopt(
            replace(both, models={"quick": both.models["quick"]}, backends={"edge": both.backends["edge"]}),
            must_open=False,
        )
        await asyncio.sleep(0.05)
        assert not going[0].done()
        assert of.lab.cloud.closed == [], "closed while a request of it is under way"
        await going[0]
