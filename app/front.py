"""The inference routes as bare ASGI: read, decode, `Engine.infer`, encode, send. Every other path goes to FastAPI.

Most requests do not even get here: see `fast_path`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from app.codec import native
from app.codec.explanation import explain
from app.codec.facts import by_name
from app.compression import compressed
from app.dialects import JSON, NATIVE, OIP, Answered, Dialect, spoken_at
from app.hang_up import HangUp, HangUps
from app.http import BodyReader, Receive, Scope, Send, respond
from router.engine import Engine
from router.errors import InternalError, RouterError

log = logging.getLogger(__name__)

Headers = Mapping[bytes, bytes]

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Front:
    """The ASGI callable in front.

    Args:
        engine: Answers the requests.
        max_body_bytes: Larger bodies are refused.
        body_timeout_s: Longest that a body may take to arrive, seconds.
        count_error: Told of every error that is answered.
    """

    def __init__(
        self,
        engine: Engine,
        max_body_bytes: int,
        body_timeout_s: float,
        count_error: Callable[[RouterError], None],
    ) -> None:
        self._engine = engine
        self._count_error = count_error
        self._body = BodyReader(max_body_bytes, body_timeout_s)
        self._hang_ups = HangUps()
        self._behind: ASGIApp | None = None

    def before(self, behind: ASGIApp) -> Front:
        """Puts it before another application, which gets every other path."""
        self._behind = behind
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the inference routes; hands on the rest."""
        if scope["type"] == "http" and scope["method"] == "POST":
            dialect = spoken_at(scope["path"])
            if dialect is not None:
                return await self._infer(scope, receive, send, dialect)
        assert self._behind is not None, "before() puts it before an application"
        await self._behind(scope, receive, send)

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /infer`."""
        await self._infer(scope, receive, send, NATIVE)

    async def oip(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v2/models/{model}[/versions/{version}]/infer`."""
        await self._infer(scope, receive, send, OIP)

    async def explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /route/explain`: the body of `/infer`, but nothing is executed."""

        async def answer(body: bytes, headers: Headers, arrived: float) -> Answered:
            request = native.decode(body, headers, scope["query_string"], self._engine, arrived)
            return explain(self._engine, request), JSON

        await self._serve(scope, receive, send, answer, NATIVE)

    async def _infer(self, scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
        async def answer(body: bytes, headers: Headers, arrived: float) -> Answered:
            request, wanted = dialect.read(scope["path"], scope["query_string"], headers, body, arrived, self._engine)
            content, described = dialect.write(await self._engine.infer(request), wanted)
            accepted = headers.get(b"accept-encoding") if dialect.compresses else None
            return (content, described) if accepted is None else await compressed(content, described, accepted)

        await self._serve(scope, receive, send, answer, dialect)

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        answer: Callable[[bytes, Headers, float], Awaitable[Answered]],
        dialect: Dialect,
    ) -> None:
        arrived = time.monotonic()
        hang_up: HangUp | None = None
        try:
            headers = by_name(scope["headers"])
            body = await self._body.read(headers, receive)
            hang_up = self._hang_ups.watch(receive)
            return await respond(send, 200, *await answer(body, headers, arrived))
        except RouterError as known:
            error = known
        except asyncio.CancelledError:
            if hang_up is None or not hang_up.caused():
                raise
            return None
        except Exception:
            log.exception("a request failed in a way that nobody foresaw")
            error = InternalError("An unexpected error; the gateway's log has the details.")
        finally:
            if hang_up is not None:
                self._hang_ups.forget(hang_up)
        self._count_error(error)
        await respond(send, *dialect.describe(error))
