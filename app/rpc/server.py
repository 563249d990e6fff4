"""The gRPC server: which services it has, where it listens, what it lets in, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from tritonclient.grpc import service_pb2

from app.rpc.answers import CountError, unary
from app.rpc.health import SERVICE as HEALTH
from app.rpc.health import Health
from app.rpc.inference import Inference
from app.rpc.key import RequireKey
from app.rpc.models import Models
from app.rpc.port import PortTaken, try_port
from app.statistics import Statistics
from router.engine import Engine
from router.errors import Unsupported

INFERENCE: Final = "inference.GRPCInferenceService"

ENVELOPE_BYTES: Final = 64 << 10
"""What a message may have beside its tensors: names, shapes, parameters."""

MAX_STREAMS: Final = 1024
"""Calls that one connection may have under way; the client keeps further ones waiting, without an error."""

_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    # Otherwise a second gateway would share the port in silence, and the kernel would deal out the calls.
    ("grpc.so_reuseport", 0),
    # A client whose machine vanished is noticed, and its streams end.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # One ping per five minutes is what gRPC allows otherwise; eager clients would lose their connection for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class RpcServer:
    """The gRPC front of one process. `bind`, then `start`, then `stop`, inside the event loop.

    Args:
        engine: Answers the requests.
        statistics: What was asked of it.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        max_body_bytes: Larger tensors are refused.
        key: What callers must send, or None.
        drain_timeout_s: Longest that calls under way may take to end, seconds.
        is_ready: Whether any model can be answered and the process is not about to stop.
        count_error: Told of every error that is answered.
    """

    def __init__(
        self,
        engine: Engine,
        statistics: Statistics,
        *,
        host: str,
        port: int,
        max_body_bytes: int,
        key: str | None,
        drain_timeout_s: float,
        is_ready: Callable[[], bool],
        count_error: CountError,
    ) -> None:
        self._host = host
        self._port = port
        self._max_message_bytes = max_body_bytes + ENVELOPE_BYTES
        self._key = key
        self._drain_timeout_s = drain_timeout_s
        self._count_error = count_error
        self._inference = Inference(engine, count_error)
        self._models = Models(engine, statistics, is_ready)
        self._health = Health(frozenset({INFERENCE}), is_ready)
        self._server: Any = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it listens: `127.0.0.1:8081`."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def bind(self) -> None:
        """Takes the port; calls wait in it until `start`.

        Raises:
            PortTaken: It cannot.
        """
        interceptors = [] if self._key is None else [RequireKey(self._key, self._count_error)]
        limit = ("grpc.max_receive_message_length", self._max_message_bytes)
        self._server = grpc.aio.server(interceptors=interceptors, options=(*_OPTIONS, limit))
        # Not as registered methods: the server keeps a wait for each of those, and renews them all with every call.
        self._server.add_generic_rpc_handlers((self._service(), self._health.handlers(), _reflection()))
        try_port(self._host, self._port, self.address)
        try:
            self._port = self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise PortTaken(self.address, str(error)) from None

    async def start(self) -> None:
        """Accepts calls."""
        await self._server.start()

    def begin_stop(self) -> None:
        """Takes no more calls; those under way get the drain time to end."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="gRPC stops")

    async def stop(self) -> None:
        """Ends it; returns when no call is under way any more."""
        self.begin_stop()
        assert self._stopping is not None, "begin_stop starts it"
        await self._stopping

    async def _stop(self) -> None:
        self._inference.close_streams()
        self._health.close()
        await self._server.stop(self._drain_timeout_s)

    def _service(self) -> Any:
        handlers = {name: unary(method) for name, method in self._models.methods().items()}
        handlers["ModelInfer"] = unary(self._inference.infer, self._count_error)
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._inference.stream)
        for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
            handlers.setdefault(method.name, unary(_unsupported(method.name)))
        return grpc.method_handlers_generic_handler(INFERENCE, handlers)


def _unsupported(name: str) -> Any:
    async def refuse(body: bytes, context: Any) -> bytes:
        raise Unsupported(f"{name} is not supported: the policy file says which models there are and how they run.")

    return refuse


def _reflection() -> Any:
    """Lets tools such as grpcurl ask what there is."""
    names = (INFERENCE, HEALTH, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": handler})
