"""`grpc.health.v1`: what balancers and orchestrators ask. It says what readiness over HTTP says.

gRPC's own servicer keeps a status that somebody has to set; this one looks when it is asked, and every `LOOK_EVERY_S`
for as long as somebody watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2

from app.codec.oip_grpc import parse
from app.rpc.answers import unary

SERVICE: Final = "grpc.health.v1.Health"
LOOK_EVERY_S = 0.1

_STATUS = health_pb2.HealthCheckResponse.ServingStatus


class Health:
    """The health service.

    Args:
        services: Whose health is known, beside the whole server's, whose name is empty.
        is_ready: Whether any model can be answered and the process is not about to stop.
    """

    def __init__(self, services: frozenset[str], is_ready: Callable[[], bool]) -> None:
        self._services = services | {""}
        self._is_ready = is_ready
        self._closing = asyncio.Event()

    def handlers(self) -> Any:
        """The service, as gRPC takes it."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"Check": unary(self.check), "Watch": grpc.unary_stream_rpc_method_handler(self.watch)}
        )

    def close(self) -> None:
        """Tells those who watch that it is over, and lets them go."""
        self._closing.set()

    async def check(self, body: bytes, context: Any) -> bytes:
        """The health at present."""
        service = parse(health_pb2.HealthCheckRequest, body).service
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no service {service[:200]!r}.")
        return _written(self._status(service))

    async def watch(self, body: bytes, context: Any) -> None:
        """The health at present, and whenever it changes."""
        # gRPC hands over a message that is none as it is; an unknown service is what it would ask about.
        service = health_pb2.HealthCheckRequest.FromString(body).service
        last = None
        while True:
            status = self._status(service)
            if status != last:
                await context.write(_written(status))
                last = status
            if self._closing.is_set():
                return
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._closing.wait()
            except TimeoutError:
                pass

    def _status(self, service: str) -> Any:
        if service not in self._services:
            return _STATUS.SERVICE_UNKNOWN
        return _STATUS.SERVING if self._is_ready() and not self._closing.is_set() else _STATUS.NOT_SERVING


def _written(status: Any) -> bytes:
    content: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return content
