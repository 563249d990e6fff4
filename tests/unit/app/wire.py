"""A client that has its own way of sending, and what it reads of the answers."""

from __future__ import annotations

import asyncio
import functools
import gzip
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, ParamSpec

import orjson
import uvloop

P = ParamSpec("P")

PATIENCE_S = 5.0
"""For what is to happen at once: a busy machine may take its time."""


def in_real_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs an async test on the loop that the gateway is served with."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 no event tells
            await asyncio.sleep(0.005)


class Answer(NamedTuple):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    def essence(self) -> tuple[int, dict[str, str], object]:
        """What does not depend on when it was given."""
        headers = {name: value for name, value in self.headers.items() if name not in ("date", "content-length")}
        body = gzip.decompress(self.body) if "content-encoding" in headers else self.body
        try:
            document: object = orjson.loads(body)
        except orjson.JSONDecodeError:
            return self.status, headers, body
        if isinstance(document, dict):
            for name in ("id", "route", "parameters"):
                document.pop(name, None)
        return self.status, headers, document

    def score(self) -> float:
        """The first of the scores that it tells, in `/infer`'s way."""
        assert self.status == 200, self
        return float(orjson.loads(self.body)["outputs"]["scores"][0][0])


class Client:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.transport = writer.transport

    def send(self, content: bytes) -> None:
        """Sends, unless the other end has closed."""
        if not self.transport.is_closing():
            self._writer.write(content)

    async def answer(self) -> Answer:
        """The next answer; those that only announce one are passed over."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").rstrip().split("\r\n")
            pairs = [line.split(": ", 1) for line in lines]
            headers = dict(pairs)
            assert len(headers) == len(pairs), "a header came twice"
            code = int(status.split()[1])
            if code == 100:
                return await self.answer()
            return Answer(code, headers, await self._reader.readexactly(int(headers["content-length"])))

    async def rest(self) -> list[Answer]:
        """All answers until the other end closes."""
        answers: list[Answer] = []
        while True:
            try:
                answers.append(await self.answer())
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    raise
                return answers
            except ConnectionError:
                return answers

    async def ask(self, content: bytes) -> Answer:
        """The answer to this."""
        self.send(content)
        return await self.answer()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """A connection to this port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def turns(count: int) -> None:
    """Lets the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def talk(port: int, pieces: Sequence[bytes], turns_between: int = 0) -> list[Answer]:
    """Sends these over a connection of their own; all that is answered until it is closed."""
    async with connected(port) as client:
        reading = asyncio.ensure_future(client.rest())
        for piece in pieces:
            client.send(piece)
            await turns(turns_between)
        return await reading


def native(first: object, model: str = "quick", **more: object) -> bytes:
    """A body of `/infer` with one row, whose first number this is."""
    return orjson.dumps({"model": model, "inputs": {"x": [[first, 0.0]]}, **more})


def post(body: bytes, *headers: str, path: str = "/infer", to: str = "POST", version: str = "1.1") -> bytes:
    """A request whose head says how long its body is."""
    lines = [f"{to} {path} HTTP/{version}", "Host: here", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def cut(request: bytes, body_bytes: int = 0) -> tuple[bytes, bytes]:
    """Head and so much of the body, and the rest."""
    at = request.index(b"\r\n\r\n") + 4 + body_bytes
    return request[:at], request[at:]


END = b"GET /the-end HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
"""Asks for the connection to be closed after its answer."""
