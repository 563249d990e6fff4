"""An HTTP server that answers what it is told to, for what no real server does on demand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

REASON = b"because"


def answer(body: bytes = b"{}", status: int = 200, headers: bytes = b"", length: int | None = None) -> bytes:
    """A whole HTTP answer; `headers` are further lines, each with its end."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, REASON, size, headers, body)


def document_of(request: tuple[bytes, bytes]) -> dict[str, Any]:
    """The JSON of a request, without the raw tensors that may follow it."""
    head, body = request
    length = re.search(rb"inference-header-content-length: (\d+)", head.lower())
    document: dict[str, Any] = json.loads(body[: int(length[1])] if length else body)
    return document


@dataclass
class HttpStub:
    """See the module.

    Attributes:
        answers: Bytes by the end of the path that they answer; None says nothing, and b"" hangs up.
        requests: Head and body of all that was asked.
        connections: How many connections there were.
        hung_up: How many of them ended while a request was read or answered, or between two.
        asked: Set once an inference was asked for.
        hold: Inferences are answered once this is set.
    """

    answers: dict[str, bytes | None]
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    connections: int = 0
    hung_up: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection's requests."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                self.requests.append((head, await reader.readexactly(length)))
                path = head.split(b" ")[1].decode()
                if path.endswith("/infer"):
                    self.asked.set()
                    await self.hold.wait()
                said = next((said for end, said in self.answers.items() if path.endswith(end)), answer(status=404))
                if said is None:
                    await reader.read()  # until the client goes
                    break
                writer.write(said)
                if not said:
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up += 1
        finally:
            writer.close()

    def sent(self, end: str) -> list[tuple[bytes, bytes]]:
        """The requests whose path ends like this."""
        return [(head, body) for head, body in self.requests if head.split(b" ")[1].decode().endswith(end)]


@asynccontextmanager
async def http_stub(answers: dict[str, bytes | None], *, held: bool = False) -> AsyncIterator[HttpStub]:
    """Runs one on a free port."""
    stub = HttpStub(answers)
    if not held:
        stub.hold.set()
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    stub.url = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    try:
        yield stub
    finally:
        server.close()
