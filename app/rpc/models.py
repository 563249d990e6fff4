"""What the server says about itself and its models, over gRPC: the values of `app.oip_views` as protobuf messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2

from app import oip_views
from app.codec.oip_grpc import parse
from app.rpc.answers import Method
from app.statistics import Statistics
from router.engine import Engine
from router.errors import UnknownModel, Unsupported


class Models:
    """The methods that infer nothing.

    Args:
        engine: Knows the models and their health.
        statistics: Knows what was asked of them.
        is_ready: Whether any model can be answered and the process is not about to stop.
    """

    def __init__(self, engine: Engine, statistics: Statistics, is_ready: Callable[[], bool]) -> None:
        self._engine = engine
        self._statistics = statistics
        self._is_ready = is_ready

    def methods(self) -> dict[str, Method]:
        """Them, by the name that the protocol has for each."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
        }

    async def server_live(self, body: bytes, context: Any) -> bytes:
        """It is, if it answers."""
        return _written(service_pb2.ServerLiveResponse(live=True))

    async def server_ready(self, body: bytes, context: Any) -> bytes:
        """Whether any model can be answered."""
        return _written(service_pb2.ServerReadyResponse(ready=self._is_ready()))

    async def server_metadata(self, body: bytes, context: Any) -> bytes:
        """Name, version and extensions."""
        return _as(service_pb2.ServerMetadataResponse, oip_views.server_metadata())

    async def model_ready(self, body: bytes, context: Any) -> bytes:
        """Whether a model can be answered; one that is not known cannot, which Triton does not call an error."""
        asked = parse(service_pb2.ModelReadyRequest, body)
        try:
            spec = oip_views.model_spec(self._engine, asked.name, asked.version or None)
        except UnknownModel:
            return _written(service_pb2.ModelReadyResponse(ready=False))
        return _written(service_pb2.ModelReadyResponse(ready=oip_views.is_ready(self._engine, spec.name)))

    async def model_metadata(self, body: bytes, context: Any) -> bytes:
        """What a model takes and gives."""
        asked = parse(service_pb2.ModelMetadataRequest, body)
        spec = oip_views.model_spec(self._engine, asked.name, asked.version or None)
        return _as(service_pb2.ModelMetadataResponse, oip_views.model_metadata(spec))

    async def model_config(self, body: bytes, context: Any) -> bytes:
        """A model as Triton would configure it."""
        asked = parse(service_pb2.ModelConfigRequest, body)
        entry = oip_views.model_entry(self._engine, asked.name, asked.version or None)
        return _as(service_pb2.ModelConfigResponse, {"config": oip_views.model_config(entry)})

    async def model_statistics(self, body: bytes, context: Any) -> bytes:
        """What was asked of a model, or without a name of all of them."""
        asked = parse(service_pb2.ModelStatisticsRequest, body)
        view = oip_views.model_statistics(self._statistics, self._engine, asked.name or None, asked.version or None)
        return _as(service_pb2.ModelStatisticsResponse, view)

    async def repository_index(self, body: bytes, context: Any) -> bytes:
        """Which models there are, and whether they are ready."""
        asked = parse(service_pb2.RepositoryIndexRequest, body)
        if asked.repository_name:
            raise Unsupported("There are no repositories here to choose from; leave repository_name empty.")
        models = oip_views.repository_index(self._engine, asked.ready)
        return _as(service_pb2.RepositoryIndexResponse, {"models": models})


def _as(kind: Any, view: dict[str, Any]) -> bytes:
    return _written(ParseDict(view, kind()))


def _written(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content
