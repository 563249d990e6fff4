"""Lets no call in without the key: an interceptor that is only there when a key is set."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from app.rpc.answers import CountError, refuse
from router.errors import Unauthenticated

OPEN_METHODS: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
"""What an orchestrator asks without a key, as over HTTP."""


class RequireKey(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Hands on calls whose metadata have `authorization: Bearer KEY`.

    Args:
        key: The key.
        count_error: Told of every refusal.
    """

    def __init__(self, key: str, count_error: CountError) -> None:
        self._expected = f"Bearer {key}".encode()
        self._count_error = count_error
        # Of this kind whatever the method's own: it answers without waiting for a message that may never come.
        self._refusal = grpc.stream_stream_rpc_method_handler(self._refuse)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler, or the one that refuses."""
        if handler_call_details.method in OPEN_METHODS or self._is_given(handler_call_details.invocation_metadata):
            return await continuation(handler_call_details)
        return self._refusal

    def _is_given(self, metadata: Any) -> bool:
        given = next((value for key, value in metadata if key == "authorization"), "")
        return hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._expected)

    async def _refuse(self, _: object, context: Any) -> None:
        error = Unauthenticated("Send the gateway's key as metadata, authorization: Bearer KEY.")
        self._count_error(error)
        await refuse(context, error)
