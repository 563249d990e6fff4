"""However requests are sent, they are answered in order, once each, and as ASGI would have answered them."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import orjson
import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

import app.http_protocol
from tests.unit.app.doors import MOST_BYTES, Door, House, house
from tests.unit.app.wire import END, Answer, connected, cut, in_real_time, native, post, talk

PROTOCOL = orjson.dumps(
    {"id": "one", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [7.0, 0.0]}]}
)
QUICK = "/v2/models/quick/infer"


def chunked(body: bytes, *headers: str) -> bytes:
    """The same request without a length."""
    head = "\r\n".join(["POST /infer HTTP/1.1", "Host: here", *headers, "Transfer-Encoding: chunked", "", ""]).encode()
    return head + b"5\r\n%b\r\n%x;x=y\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (body[:5], len(body) - 5, body[5:])


REQUESTS = {
    "one": post(native(1.0)),
    "the same head, another body": post(native(2.0)),
    "the same length, but no JSON": post(b"}" * len(native(1.0))),
    "another length": post(native(1.25)),
    "one that takes a while": post(native(3.0, "slow")),
    "another model": post(native(4.0, "nosuch")),
    "the protocol": post(PROTOCOL, path=QUICK),
    "the protocol, and a slash": post(PROTOCOL, path=f"{QUICK}/"),
    "the protocol, a version": post(PROTOCOL, path="/v2/models/quick/versions/1/infer"),
    "the protocol, a strange path": post(PROTOCOL, path="/v2/models/quick/more/infer"),
    "the protocol, slow": post(PROTOCOL, path="/v2/models/slow/infer"),
    "a compressed answer": post(PROTOCOL, "Accept-Encoding: gzip", path=QUICK),
    "compression that is not for this path": post(native(5.0), "Accept-Encoding: gzip"),
    "a compressed body": post(gzip.compress(native(6.0), mtime=0), "Content-Encoding: gzip"),
    "a body that is not compressed as it says": post(native(6.0), "content-encoding: deflate"),
    "a body compressed in another way": post(zlib.compress(PROTOCOL), "CONTENT-ENCODING: deflate", path=QUICK),
    "a chunked body": chunked(native(8.0)),
    "a query": post(native(1.0), path="/infer?data_class=phi"),
    "a query that ends as a path does": post(PROTOCOL, path="/v2/models/quick?x=/infer"),
    "an escape": post(native(1.0), path="/inf%65r"),
    "an escape in the protocol": post(PROTOCOL, path="/v2/models/qu%69ck/infer"),
    "the whole address": post(native(1.0), path="http://here/infer"),
    "another path": post(native(1.0), path="/infer/"),
    "another method": post(native(1.0), to="PUT"),
    "no body": b"GET /infer HTTP/1.1\r\nHost: here\r\n\r\n",
    "no body, no length": b"POST /infer HTTP/1.1\r\nHost: here\r\n\r\n",
    "an empty body": post(b""),
    "a body that is too large": post(native("1" * MOST_BYTES)),
    "an announced body": post(native(9.0), "Expect: 100-continue"),
    "line ends before it": b"\r\n\r\n" + post(native(10.0)),
    "names in capitals": post(native(1.0), "X-DATA-CLASS: phi", "ACCEPT: */*"),
    "a header that is empty": post(native(1.0), "X-Empty:", "X-Data-Class: phi"),
    "a header twice": post(native(1.0), "X-Data-Class: phi", "x-data-class: phi"),
    "a header twice, with other values": post(native(1.0), "X-Data-Class: phi", "X-Data-Class: other"),
    "a header that is not ASCII": post(native(1.0), "X-Request-Id: é"),
    "a length with zeros": post(native(11.0)).replace(b"Length: ", b"Length: 00"),
    "a class that is unknown": post(native(1.0), "X-Data-Class: nosuch"),
    "no time at all": post(native(1.0), "X-Deadline-Ms: 0"),
    "to be kept alive": post(native(12.0), "Connection: keep-alive"),
}
LAST = {
    "nothing": b"",
    "to be closed": post(native(20.0), "Connection: close"),
    "a slow one, to be closed": post(native(20.0, "slow"), "Connection: close"),
    "HTTP/1.0": post(native(21.0), version="1.0"),
    "HTTP/1.0, to be kept alive": post(native(21.0), "Connection: keep-alive", version="1.0"),
    "two lengths": post(native(22.0), "Content-Length: 3"),
    "a length, and chunks": chunked(native(22.0), "Content-Length: 3"),
    "no HTTP at all": b"\x00\r\n\r\n",
}
"""After these, of which no answer but the last one's stands before, nothing more is answered."""

BROKEN = ("two lengths", "a length, and chunks", "no HTTP at all")
"""An answer to such a one may overtake those before it, on the long way too."""


class World(NamedTuple):
    """Both doors, the loop behind them, and what the long way answers to each request that comes alone."""

    runner: asyncio.Runner
    short: Door
    house: House
    expected: dict[str, tuple[int, dict[str, str], object]]


@asynccontextmanager
async def both_doors() -> AsyncIterator[tuple[House, Door, Door]]:
    async with house() as of, of.door() as short, of.door(short=False) as long:
        yield of, short, long


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        doors = both_doors()
        of, short, long = runner.run(doors.__aenter__())
        expected = {}
        for name, request in (REQUESTS | LAST).items():
            answers = runner.run(talk(long.port, [request, END] if name in REQUESTS else [request or END]))
            assert len(answers) == (2 if name in REQUESTS else 1), (name, answers)
            expected[name] = answers[0].essence()
        yield World(runner, short, of, expected)
        runner.run(doors.__aexit__(None, None, None))


def pieces_of(content: bytes, cuts: list[float] | None) -> list[bytes]:
    """The content cut at these places, which are fractions of it; byte by byte where there are none given."""
    places = range(len(content)) if cuts is None else sorted({int(place * len(content)) for place in cuts})
    bounds = [0, *places, len(content)]
    return [content[start:end] for start, end in itertools.pairwise(bounds) if end > start]


@given(
    names=st.lists(st.sampled_from(list(REQUESTS)), max_size=6),
    last=st.sampled_from([name for name in LAST if name not in BROKEN]),
    cuts=st.lists(st.floats(0, 1, exclude_max=True), max_size=12) | st.none(),
    turns_between=st.integers(0, 3),
    patience_s=st.sampled_from([0.1, 0.0]),
)
@settings(max_examples=120)
@example(list(REQUESTS), "nothing", [], 0, 0.1)
@example([name for name in REQUESTS if name != "a body that is too large"], "nothing", None, 2, 0.1)
@example(["one"] * 9, "to be closed", [0.1, 0.3, 0.5, 0.7], 2, 0.0)
@example(["one that takes a while", "one", "a query", "the protocol"] * 3, "HTTP/1.0", [0.5], 3, 0.1)
def test_however_requests_are_sent_each_is_answered_once_in_order_as_on_the_long_way(
    world: World, names: list[str], last: str, cuts: list[float] | None, turns_between: int, patience_s: float
) -> None:
    content = b"".join(REQUESTS[name] for name in names) + LAST[last] + END
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(app.http_protocol, "PATIENCE_S", patience_s)
        answers = world.runner.run(talk(world.short.port, pieces_of(content, cuts), turns_between))
    assert [answer.essence() for answer in answers] == [world.expected[name] for name in (*names, last)]


@pytest.mark.parametrize("last", BROKEN)
@pytest.mark.parametrize("cuts", [[], [0.1]], ids=["whole", "in two"])
def test_what_is_no_request_is_refused_and_the_connection_closed(world: World, last: str, cuts: list[float]) -> None:
    async def session() -> list[Answer]:
        async with connected(world.short.port) as client:
            first = [await client.ask(REQUESTS["one"]) for _ in range(2)]
            for piece in pieces_of(LAST[last], cuts):
                client.send(piece)
                await asyncio.sleep(0)
            return first + await client.rest()

    answers = world.runner.run(session())
    assert [answer.essence() for answer in answers] == [world.expected[name] for name in ("one", "one", last)]


@pytest.mark.parametrize("spare", [b"rubbish", b"\x00", b"GET"], ids=repr)
def test_what_stands_behind_a_body_is_not_part_of_it(world: World, spare: bytes) -> None:
    async def session() -> list[Answer]:
        async with connected(world.short.port) as client:
            first = await client.ask(REQUESTS["one"])
            client.send(REQUESTS["the same head, another body"] + spare + END)
            return [first, *await client.rest()]

    *answers, refusal = [answer.essence() for answer in world.runner.run(session())]
    assert answers in ([world.expected["one"]], [world.expected[name] for name in ("one", *list(REQUESTS)[1:2])])
    assert refusal == world.expected["no HTTP at all"]


@pytest.mark.parametrize("last", [name for name in LAST if name != "nothing"])
def test_a_connection_is_closed_however_often_the_same_head_came(world: World, last: str) -> None:
    for _ in range(3):
        answers = world.runner.run(talk(world.short.port, [LAST[last]]))
        assert [answer.essence() for answer in answers] == [world.expected[last]]


@pytest.mark.parametrize("path", ["/infer", "/infer?", "/elsewhere"])
def test_a_body_that_reads_like_a_request_is_a_body(world: World, path: str) -> None:
    async def session() -> list[Answer]:
        async with connected(world.short.port) as client:
            first = await client.ask(REQUESTS["one"])
            for part in cut(post(REQUESTS["one"], path=path)):
                client.send(part)
                await asyncio.sleep(0.01)
            client.send(END)
            return [first, *await client.rest()]

    assert [answer.status for answer in world.runner.run(session())] == [200, 404 if path == "/elsewhere" else 400, 404]


@pytest.mark.parametrize("order", [1, -1])
def test_heads_that_came_in_one_packet_are_not_taken_for_each_other(world: World, order: int) -> None:
    names = ("one", "a class that is unknown")
    together = b"".join(REQUESTS[name] for name in names[::order])

    async def session() -> list[Answer]:
        async with connected(world.short.port) as client:
            return [await client.ask(together), await client.answer(), *[await client.ask(REQUESTS[n]) for n in names]]

    answers = world.runner.run(session())
    assert [answer.essence() for answer in answers] == [world.expected[name] for name in (*names[::order], *names)]


def test_each_refusal_is_counted_once_whichever_way_it_was_made(world: World) -> None:
    names = [name for name in REQUESTS if world.expected[name][0] >= 400]
    errors = world.house.errors
    counts = []
    for pieces in ([b"".join(REQUESTS[name] for name in names), END], [*(REQUESTS[name] for name in names), END]):
        errors.clear()
        world.runner.run(talk(world.short.port, pieces, 3))
        counts.append(sorted(error.code for error in errors))
    errors.clear()
    for name in names:
        world.runner.run(talk(world.short.port, [*cut(REQUESTS[name]), END], 3))
    assert counts == [sorted(error.code for error in errors)] * 2
    assert len(counts[0]) == sum(world.expected[name][2].__class__ is dict for name in names)


@in_real_time
async def test_a_head_that_was_let_in_lets_nobody_else_in() -> None:
    key = "the right key, and a long one"
    right, wrong, none = (f"Authorization: Bearer {key}",), (f"Authorization: Bearer {key[:-1]}x",), ()
    async with house(key) as of, of.door() as door, connected(door.port) as client, connected(door.port) as other:
        for _ in range(3):
            for headers, status in ((right, 200), (wrong, 401), (none, 401)):
                for whole in (True, False):
                    for one in (client, other):
                        head, body = cut(post(native(1.0), *headers))
                        one.send(head + body if whole else head)
                        await asyncio.sleep(0.005)
                        one.send(b"" if whole else body)
                        assert (await one.answer()).status == status
        assert len(of.errors) == 24
        assert len(of.fast_path.heads) == 1
