"""Asks a Triton Inference Server, or any other with its configuration and statistics, over gRPC.

It uses the messages that tritonclient carries, over a channel of its own (docs/decisions/0027).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from backends.grpc_call import RpcError
from backends.grpc_channel import GrpcChannel
from backends.oip import bytes_tensor
from backends.server import Late, Parts, Served, ServerVariant, seconds_until, together
from backends.triton_messages import declared_outputs, infer_request, survives_cancelling, totals, translated
from backends.turn_sender import TurnSender
from router.errors import BackendFailed, BackendRejectedInput, BackendUnavailable
from router.model import ModelSpec, Tensor, Tensors
from router.ports import BackendContext, Call, synthetic_call
from router.types import EncodedImage, Reply

SERVICE = "inference.GRPCInferenceService"

JOINED_S = 0.005
"""So long the server may compute, by its own statistics, for requests that are sent as one: nobody waits for more than
that because of others, and a model that takes longer for two rows gets each request by itself, on whichever of its
instances is free."""

JOINED_BYTES = 1 << 20
"""Bytes of input that may be sent as one; with more there is nothing to save."""


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Where the server is.

    Args:
        url: `grpc://host:port`, or `grpcs://host:port` for TLS with the system's certificate authorities.
    """

    url: str

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            complete = parts.scheme in ("grpc", "grpcs") and parts.hostname and parts.port
            complete = complete and self.url.endswith(f":{parts.port}") and "@" not in self.url
        except ValueError:
            complete = False
        if not complete:
            raise ValueError(f"url must look like grpc://host:8001 or grpcs://host:8001, not {self.url!r}")


class TritonBackend:
    """One server, one channel."""

    Options: ClassVar[type] = TritonOptions
    Variant: ClassVar[type] = ServerVariant
    on_device: ClassVar[bool] = False

    def __init__(self, options: TritonOptions, context: BackendContext) -> None:
        self._url = options.url
        self._channel: GrpcChannel | None = None

    async def open(self, model: ModelSpec, variant: ServerVariant) -> TritonServable:
        """Makes the channel, which connects when it is first used: no network is needed to open."""
        if self._channel is None:
            self._channel = GrpcChannel(self._url, SERVICE)
        return TritonServable(self._channel, model, variant)

    async def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            await self._channel.close()


class TritonServable:
    """One model on the server."""

    def __init__(self, channel: GrpcChannel, model: ModelSpec, variant: ServerVariant) -> None:
        self._channel = channel
        self._model = model
        self._variant = variant
        names = (variant.name, *([variant.encoded_image.name] if variant.encoded_image else []))
        self._served = {name: Served() for name in names}
        self._rtt_s = 0.0
        self._parts = Parts(model, variant.label)
        self._joined = TurnSender(self._send_joined, self._reply, JOINED_BYTES, time.monotonic)

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Sends the request with its deadline, which bounds the server's queue as well.

        More rows than the server takes at a time go as several requests at once.
        """
        started = time.monotonic()
        if isinstance(call.payload, EncodedImage):
            assert self._variant.encoded_image is not None, "takes_image is False"
            model = self._variant.encoded_image.name
            image = bytes_tensor(call.payload.content)
            outputs = await self._ask(call, {self._variant.encoded_image.input: image}, deadline, call.late)
        else:
            model = self._variant.name
            joined = self._joined
            if 1 <= call.rows < joined.most_rows and not call.parameters and not call.alone and not joined.alone():
                return await joined.infer(call.payload, call.rows, call.payload_bytes, deadline, call.late)
            outputs = await self._parts.ask(
                lambda part, late: self._ask(call, part, deadline, late), call.payload, call.late
            )
        return self._served[model].reply(outputs, time.monotonic() - started, self._rtt_s)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Asks whether the model is ready, which measures the round trip, and reads its statistics.

        A synthetic probe reads who the server is and how many rows it takes at a time, and makes an inference on zeros.
        """
        try:
            if synthetic:
                await together(self._read_config(deadline), self._read_server(deadline))
            else:
                await self._read_state(deadline)
        except RpcError as error:
            said = translated(error, self._variant.label)
            if isinstance(said, BackendRejectedInput):  # nothing was put in: so it says that it has no such model
                said = BackendUnavailable(said.detail)
            raise said from error
        return await self.infer(synthetic_call(self._model), deadline) if synthetic else None

    async def _read_state(self, deadline: float) -> None:
        """Readiness and statistics at once: over a slow WAN, one round trip rather than two or three."""
        await together(
            self._check_ready(deadline),
            self._read_server(deadline),
            *(self._read_statistics(name, served, deadline) for name, served in self._served.items()),
        )

    async def _check_ready(self, deadline: float) -> None:
        started = time.monotonic()
        request = service_pb2.ModelReadyRequest(name=self._variant.name, version=self._variant.version)
        ready = await self._read("ModelReady", request, service_pb2.ModelReadyResponse, deadline)
        if not ready.ready:
            raise BackendUnavailable(f"The server says that {self._variant.label} is not ready.")
        self._rtt_s = time.monotonic() - started

    async def _read_server(self, deadline: float) -> None:
        """Asks once over each connection who is there: not every server survives that its calls are cancelled."""
        connection = self._channel.connection
        if connection is None or connection.survives_cancelling is not None:
            return
        request = service_pb2.ServerMetadataRequest()
        try:
            server = await self._read("ServerMetadata", request, service_pb2.ServerMetadataResponse, deadline)
        except (RpcError, BackendFailed):  # who cannot say this can still answer
            survives = False
        else:
            survives = survives_cancelling(server)
        if connection is self._channel.connection:
            connection.survives_cancelling = survives

    async def _read_statistics(self, name: str, served: Served, deadline: float) -> None:
        request = service_pb2.ModelStatisticsRequest(name=name)
        served.learn(
            totals(await self._read("ModelStatistics", request, service_pb2.ModelStatisticsResponse, deadline))
        )
        if name == self._variant.name and self._model.batchable and served.row_s is not None:
            self._joined.most_rows = min(self._parts.most, int(JOINED_S / max(served.row_s, 1e-9)))

    async def _read_config(self, deadline: float) -> None:
        request = service_pb2.ModelConfigRequest(name=self._variant.name, version=self._variant.version)
        answer = await self._read("ModelConfig", request, service_pb2.ModelConfigResponse, deadline)
        self._parts.most = answer.config.max_batch_size

    async def _read(self, method: str, request: Any, answer: Any, deadline: float) -> Any:
        return self._parsed(answer, await self._channel.ask(method, request.SerializeToString(), deadline))

    def _parsed(self, kind: Any, content: bytes) -> Any:
        """A message of the server's.

        Raises:
            BackendFailed: It is none of that kind.
        """
        try:
            return kind.FromString(content)
        except DecodeError as error:
            raise BackendFailed(f"{self._variant.label} did not answer with a message of its protocol.") from error

    async def close(self) -> None:
        """Lets go of what is under way; the channel is the backend's."""
        await self._joined.close()

    async def _send_joined(self, tensors: Tensors, deadline: float, late: Late) -> dict[str, Tensor]:
        return await self._ask(Call(tensors, 0, 0, "joined", {}), tensors, deadline, late)

    def _reply(self, outputs: dict[str, Tensor], elapsed_s: float) -> Reply:
        return self._served[self._variant.name].reply(outputs, elapsed_s, self._rtt_s)

    async def _ask(self, call: Call, tensors: Tensors, deadline: float, late: Late | None) -> dict[str, Tensor]:
        seconds = seconds_until(deadline)
        if isinstance(call.payload, EncodedImage):
            assert self._variant.encoded_image is not None, "takes_image is False"
            request = infer_request(call, self._variant.encoded_image.name, "", tensors, seconds)
        else:
            request = infer_request(call, self._variant.name, self._variant.version, tensors, seconds)
        try:
            content = await self._channel.ask_to_the_end("ModelInfer", request.SerializeToString(), deadline, late)
        except RpcError as error:
            raise translated(error, self._variant.label) from error
        response = self._parsed(service_pb2.ModelInferResponse, content)
        return declared_outputs(response, self._model, self._variant.label)
