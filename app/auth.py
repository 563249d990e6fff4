"""Lets nobody in without the key: an ASGI layer that is only there when a key is set."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from app.codec.problem import oip_error, problem
from app.http import Receive, Scope, Send, respond
from router.errors import RouterError, Unauthenticated

OPEN_PATHS = frozenset(
    {"/healthz", "/readyz", *(f"/v2/health/{what}{slash}" for what in ("live", "ready") for slash in ("", "/"))}
)
"""What an orchestrator asks without a key; they tell which models can be answered, and no more."""


class RequireKey:
    """Hands on requests that carry `Authorization: Bearer KEY`.

    Args:
        app: What is protected.
        key: The key.
        count_error: Told of every refusal.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        key: str,
        count_error: Callable[[RouterError], None],
    ) -> None:
        self._app = app
        self._count_error = count_error
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on, or answers 401."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(given, self._expected):
                error = Unauthenticated("Send the gateway's key as Authorization: Bearer KEY.")
                self._count_error(error)
                return await respond(send, *(oip_error if scope["path"].startswith("/v2") else problem)(error))
        await self._app(scope, receive, send)
