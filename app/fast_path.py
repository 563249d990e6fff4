"""Answers inference requests without ASGI, a task and a coroutine: those of one turn of the event loop together.

Every request that is small and asks for nothing special comes here straight from the HTTP protocol. What the
engine can answer on the spot is answered on the spot, and only the rest gets a task.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from app.dialects import Answered, spoken_at
from app.exchange import Exchange, Head
from backends.turns import Turns
from router.engine import Engine
from router.errors import InternalError, NoBackendAvailable, RouterError
from router.inline import Begun
from router.types import InferenceRequest, InferenceResponse

log = logging.getLogger(__name__)

MOST_AT_ONCE = 32
"""Requests that are answered together: the first is not to wait for more of them."""

MOST_BYTES = 1 << 18
"""A larger body takes longer than is to be saved here."""

MOST_HEADS = 1024
LONGEST_HEAD = 2048
MOST_HEADERS = 32
"""How many heads are remembered, and how long they may be, and of how many lines: some ten megabytes in all."""

_UNUSUAL = frozenset((b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"))


class FastPath(Turns):
    """See the module.

    Args:
        engine: Answers the requests.
        max_body_bytes: What is larger is for others to refuse.
        key: The key that requests have to bring, if one is set.
        count_error: Told of every error that is answered.

    Attributes:
        heads: What heads say that came before, up to their empty line. Only of requests that may take the short way,
            on connections that stay open.
    """

    __slots__ = ("_count_error", "_engine", "_exchanges", "_key", "_most_bytes", "heads")

    def __init__(
        self, engine: Engine, max_body_bytes: int, key: str | None, count_error: Callable[[RouterError], None]
    ) -> None:
        super().__init__()
        self._engine = engine
        self._most_bytes = min(max_body_bytes, MOST_BYTES)
        self._key = None if key is None else f"Bearer {key}".encode()
        self._count_error = count_error
        self._exchanges: list[Exchange] = []
        self.heads: dict[bytes, Head] = {}

    def remember(self, raw: bytes, head: Head) -> None:
        """Learns what a head says, byte for byte: clients send the same one again and again."""
        if len(raw) <= LONGEST_HEAD and len(head.headers) <= MOST_HEADERS:
            if len(self.heads) >= MOST_HEADS:
                self.heads.clear()
            self.heads[raw] = head

    def head(self, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Head | None:
        """What the head of a POST request says; None if it takes the long way.

        Args:
            url: As the request line has it.
            headers: With lower-case names.
        """
        if len(url) > LONGEST_HEAD or not url.isascii() or b"%" in url or b"?" in url or b"#" in url:
            return None
        path = url.decode()
        dialect = spoken_at(path)
        if dialect is None:
            return None
        named = dict(headers)
        length = named.get(b"content-length", b"")
        if len(named) != len(headers) or not named.keys().isdisjoint(_UNUSUAL):
            return None
        if not length.isdigit() or len(length) > 18:
            return None
        if int(length) > self._most_bytes or (dialect.compresses and b"accept-encoding" in named):
            return None
        if self._key is not None and not hmac.compare_digest(named.get(b"authorization", b""), self._key):
            return None
        return Head(dialect, path, named, int(length))

    def take(self, exchange: Exchange) -> None:
        """Answers a request, alone or with others that come in the same turn."""
        if self.alone():
            self._answer((exchange,))
        else:
            self._exchanges.append(exchange)
            self._gather()

    def _end(self) -> None:
        exchanges, self._exchanges = self._exchanges, []
        for start in range(0, len(exchanges), MOST_AT_ONCE):
            self._answer(exchanges[start : start + MOST_AT_ONCE])

    def _answer(self, exchanges: Sequence[Exchange]) -> None:
        """Answers these, or sets about it."""
        try:
            self._try_to_answer(exchanges)
        except Exception as error:  # a defect of ours must not leave anybody waiting
            for exchange in exchanges:
                if not exchange.response_complete and not exchange.at_work:
                    self._refuse(exchange, error)

    def _try_to_answer(self, exchanges: Sequence[Exchange]) -> None:
        requests: list[InferenceRequest] = []
        asked: list[tuple[Exchange, Any]] = []
        for exchange in exchanges:
            if exchange.disconnected:
                continue
            head = exchange.head
            try:
                request, wanted = head.dialect.read(
                    head.path, b"", head.headers, exchange.body, exchange.arrived, self._engine
                )
            except Exception as error:
                self._refuse(exchange, error)
            else:
                requests.append(request)
                asked.append((exchange, wanted))
        ready: list[tuple[Exchange, Answered]] = []
        for (exchange, wanted), result in zip(asked, self._engine.infer_inline(requests), strict=True):
            if isinstance(result, InferenceResponse):
                written = self._written(exchange, wanted, result)
                if written is not None:
                    ready.append((exchange, written))
            elif isinstance(result, Begun):
                task = self._running_loop().create_task(self._go_on(exchange, wanted, result), name="infer")
                task.add_done_callback(partial(self._over, exchange, result))
                exchange.work(task)
            else:
                self._refuse(exchange, result)
        for exchange, (body, headers) in ready:  # not before: each wakes a client, which wants the processor
            exchange.answer(200, body, headers)

    async def _go_on(self, exchange: Exchange, wanted: Any, begun: Begun) -> None:
        try:
            response = await self._engine.go_on(begun)
        except Exception as error:
            self._refuse(exchange, error)
        else:
            written = self._written(exchange, wanted, response)
            if written is not None:
                exchange.answer(200, *written)

    def _over(self, exchange: Exchange, begun: Begun, _: asyncio.Task[None]) -> None:
        """Sees to a request whose task has ended: it may have been cancelled, even before its first step."""
        self._engine.abandon(begun)
        if not exchange.response_complete and not exchange.disconnected:
            exchange.keep_alive = False
            self._refuse(exchange, NoBackendAvailable("The gateway is stopping. Send the request again, elsewhere."))

    def _written(self, exchange: Exchange, wanted: Any, response: InferenceResponse) -> Answered | None:
        """An answer as it is sent; None if the client was told that it could not be written."""
        try:
            return exchange.head.dialect.write(response, wanted)
        except Exception as error:
            self._refuse(exchange, error)
            return None

    def _refuse(self, exchange: Exchange, error: Exception) -> None:
        if not isinstance(error, RouterError):
            log.error("a request failed in a way that nobody foresaw", exc_info=error)
            error = InternalError("An unexpected error; the gateway's log has the details.")
        self._count_error(error)
        document = exchange.head.dialect.describe(error)
        exchange.answer(document.status, document.body, document.headers)
