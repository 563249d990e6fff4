"""What the server says about itself and its models, over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2

from app.codec import oip, oip_grpc
from app.rpc.answers import Method
from router.engine import Engine
from router.errors import UnknownModel


class Models:
    """The methods that infer nothing.

    Args:
        engine: Knows the models and their health.
        is_ready: Whether any model can be answered and the process is not about to stop.
    """

    def __init__(self, engine: Engine, is_ready: Callable[[], bool]) -> None:
        self._engine = engine
        self._is_ready = is_ready

    def methods(self) -> dict[str, Method]:
        """Them, by the name that the protocol has for each."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
        }

    async def server_live(self, body: bytes, context: Any) -> bytes:
        """It is, if it answers."""
        return _written(service_pb2.ServerLiveResponse(live=True))

    async def server_ready(self, body: bytes, context: Any) -> bytes:
        """Whether any model can be answered."""
        return _written(service_pb2.ServerReadyResponse(ready=self._is_ready()))

    async def model_ready(self, body: bytes, context: Any) -> bytes:
        """Whether a model can be answered; one that is not known cannot, which Triton does not call an error."""
        asked = oip_grpc.parse(service_pb2.ModelReadyRequest, body)
        try:
            spec = oip.model_spec(self._engine, asked.name, asked.version or None)
        except UnknownModel:
            return _written(service_pb2.ModelReadyResponse(ready=False))
        targets = self._engine.snapshot.models[spec.name].targets
        return _written(service_pb2.ModelReadyResponse(ready=any(target.available for target in targets)))

    async def model_metadata(self, body: bytes, context: Any) -> bytes:
        """What a model takes and gives."""
        asked = oip_grpc.parse(service_pb2.ModelMetadataRequest, body)
        spec = oip.model_spec(self._engine, asked.name, asked.version or None)
        return _written(ParseDict(oip.metadata(spec), service_pb2.ModelMetadataResponse()))


def _written(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content
