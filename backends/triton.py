"""Asks a Triton Inference Server, or any server of the same protocol, over gRPC.

It uses the stubs that tritonclient generates but a channel of its own: one channel carries all calls, its
settings are made together, and it can be replaced.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from backends.oip import bytes_tensor, datatype, decode_raw, encode_raw
from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
)
from router.ports import BackendContext, Call, synthetic_call
from router.types import EncodedImage, ModelSpec, Reply, Tensor, Tensors, row_count

MAX_MESSAGE_BYTES = 64 << 20

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # gRPC's default backs off up to two minutes, and would stay away that long after the WAN is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Subchannels are shared across the process otherwise, and a new channel would inherit a stuck connection.
    ("grpc.use_local_subchannel_pool", 1),
    # No keepalive pings: the probes carry data more often than any ping would, and servers strike eager pings.
)


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Where the server is.

    Args:
        url: `grpc://host:port`, or `grpcs://host:port` for TLS with the system's certificate authorities.
    """

    url: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("grpc", "grpcs") or not parts.hostname or parts.port is None or parts.path:
            raise ValueError(f"url must look like grpc://host:8001 or grpcs://host:8001, not {self.url!r}")


@dataclass(frozen=True, slots=True)
class EncodedImageModel:
    """A model on the server that takes the image file itself, and runs the stages there.

    Args:
        name: Its name on the server.
        input: Its input, BYTES [N, 1].
    """

    name: str
    input: str = "image"


@dataclass(frozen=True, slots=True)
class TritonVariant:
    """A model on the server.

    Args:
        name: Its name on the server.
        version: Its version on the server; empty lets the server choose.
        encoded_image: The model to send image files to, if the server has one.
    """

    name: str
    version: str = ""
    encoded_image: EncodedImageModel | None = None

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name}:{self.version}" if self.version else self.name

    @property
    def takes_image(self) -> bool:
        """Whether image files may be sent as they are."""
        return self.encoded_image is not None


class TritonBackend:
    """One server, one channel."""

    Options: ClassVar[type] = TritonOptions
    Variant: ClassVar[type] = TritonVariant

    def __init__(self, options: TritonOptions, context: BackendContext) -> None:
        self._options = options
        self._channel: grpc.aio.Channel | None = None

    async def open(self, model: ModelSpec, variant: TritonVariant) -> TritonServable:
        """Makes the channel, which connects when it is first used: no network is needed to open."""
        if self._channel is None:
            target = urlsplit(self._options.url).netloc
            if self._options.url.startswith("grpcs:"):
                self._channel = grpc.aio.secure_channel(
                    target, grpc.ssl_channel_credentials(), options=_CHANNEL_OPTIONS
                )
            else:
                self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        return TritonServable(service_pb2_grpc.GRPCInferenceServiceStub(self._channel), model, variant)

    async def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            await self._channel.close()


class TritonServable:
    """One model on the server.

    Triton does not say what a single request cost it. Its statistics do for all of them together, so a probe reads
    those, and a reply's queue and compute time are the server's means since the probe before; what is left of the
    time that passed here is the network's. Until there are such means, all but the round trip counts as compute.
    """

    def __init__(self, stub: Any, model: ModelSpec, variant: TritonVariant) -> None:
        self._stub = stub
        self._model = model
        self._variant = variant
        names = (variant.name, *([variant.encoded_image.name] if variant.encoded_image else []))
        self._served = {name: _Served() for name in names}
        self._rtt_s = 0.0
        self._max_rows = 0

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Sends the request with its deadline, which bounds the server's queue as well.

        More rows than the server takes at a time go as several requests at once.
        """
        started = time.monotonic()
        if isinstance(call.payload, EncodedImage):
            assert self._variant.encoded_image is not None, "takes_image is False"
            model = self._variant.encoded_image.name
            image = bytes_tensor(call.payload.content)
            outputs = await self._ask(call, {self._variant.encoded_image.input: image}, deadline)
        else:
            model = self._variant.name
            outputs = await self._ask_in_batches(call, call.payload, deadline)
        elapsed = time.monotonic() - started
        queue, compute = self._served[model].means(max(0.0, elapsed - self._rtt_s))
        compute = min(elapsed, compute)
        queue = min(elapsed - compute, queue)
        return Reply(outputs, queue, elapsed - compute - queue, compute)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Asks whether the model is ready, which measures the round trip, then reads its statistics.

        A synthetic one also reads how many rows the server takes at a time, and makes an inference on zeros.
        """
        name, version = self._variant.name, self._variant.version
        started = time.monotonic()
        try:
            ready = await self._stub.ModelReady(
                service_pb2.ModelReadyRequest(name=name, version=version), timeout=max(0.0, deadline - started)
            )
            if not ready.ready:
                raise BackendUnavailable(f"The server says that {self._variant.label} is not ready.")
            self._rtt_s = time.monotonic() - started
            for model, served in self._served.items():
                request = service_pb2.ModelStatisticsRequest(name=model)
                served.learn(await self._stub.ModelStatistics(request, timeout=max(0.0, deadline - time.monotonic())))
            if synthetic:
                config = await self._stub.ModelConfig(
                    service_pb2.ModelConfigRequest(name=name, version=version),
                    timeout=max(0.0, deadline - time.monotonic()),
                )
                self._max_rows = config.config.max_batch_size
        except grpc.aio.AioRpcError as error:
            raise _translated(error, self._variant.label) from error
        if not synthetic:
            return None
        return await self.infer(synthetic_call(self._model), deadline)

    async def close(self) -> None:
        """Nothing to do: the channel is the backend's."""

    async def _ask_in_batches(self, call: Call, tensors: Tensors, deadline: float) -> dict[str, Tensor]:
        rows = row_count(tensors, self._model)
        if not 0 < self._max_rows < rows:
            return await self._ask(call, tensors, deadline)
        try:
            async with asyncio.TaskGroup() as asking:
                parts = [
                    asking.create_task(
                        self._ask(
                            call, {name: tensor[at : at + self._max_rows] for name, tensor in tensors.items()}, deadline
                        )
                    )
                    for at in range(0, rows, self._max_rows)
                ]
        except* BackendError as errors:
            raise errors.exceptions[0] from None
        return {name: np.concatenate([part.result()[name] for part in parts]) for name in self._model.outputs}

    async def _ask(self, call: Call, tensors: Tensors, deadline: float) -> dict[str, Tensor]:
        seconds = max(0.0, deadline - time.monotonic())
        request = service_pb2.ModelInferRequest(id=call.request_id)
        request.parameters["timeout"].int64_param = max(1, int(seconds * 1e6))
        if isinstance(call.payload, EncodedImage):
            assert self._variant.encoded_image is not None, "takes_image is False"
            request.model_name = self._variant.encoded_image.name
        else:
            request.model_name = self._variant.name
            request.model_version = self._variant.version
        for name, tensor in tensors.items():
            request.inputs.add(name=name, datatype=datatype(tensor.dtype), shape=tensor.shape)
            request.raw_input_contents.append(encode_raw(tensor))
        try:
            response = await self._stub.ModelInfer(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise _translated(error, self._variant.label) from error
        return self._outputs(response)

    def _outputs(self, response: Any) -> dict[str, Tensor]:
        """The declared outputs. Triton keeps a batch dimension that a spec may not have: [N, 1] for [N]."""
        outputs: dict[str, Tensor] = {}
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            spec = self._model.outputs.get(output.name)
            if spec is None:
                continue
            shape = tuple(output.shape)
            if len(shape) == len(spec.shape) + 1 and shape[-1] == 1:
                shape = shape[:-1]
            if datatype(spec.dtype) != output.datatype or not spec.accepts(shape):
                raise BackendFailed(
                    f"{self._variant.label} answered {output.name} as {output.datatype} {list(output.shape)}; "
                    f"the policy file says {spec.dtype} {list(spec.shape)}."
                )
            outputs[output.name] = decode_raw(raw, spec.dtype, shape)
        missing = self._model.outputs.keys() - outputs.keys()
        if missing:
            raise BackendFailed(f"{self._variant.label} did not answer {', '.join(sorted(missing))}.")
        return outputs


class _Served:
    """What a server says it has served of one model since it started, and the means since it was asked before."""

    __slots__ = ("_compute_ns", "_count", "_means", "_queue_ns")

    def __init__(self) -> None:
        self._count = 0
        self._queue_ns = 0
        self._compute_ns = 0
        self._means: tuple[float, float] | None = None

    def means(self, otherwise_s: float) -> tuple[float, float]:
        """Mean seconds in queue and in compute of a request; no queue and `otherwise_s` where none are known."""
        return (0.0, otherwise_s) if self._means is None else self._means

    def learn(self, statistics: Any) -> None:
        """Takes in a ModelStatisticsResponse. A server that started anew counts from zero again."""
        stats = [model.inference_stats for model in statistics.model_stats]
        count = sum(s.success.count for s in stats)
        queue_ns = sum(s.queue.ns for s in stats)
        compute_ns = sum(s.compute_input.ns + s.compute_infer.ns + s.compute_output.ns for s in stats)
        more = count - self._count
        if more > 0:
            self._means = (queue_ns - self._queue_ns) / more / 1e9, (compute_ns - self._compute_ns) / more / 1e9
        self._count, self._queue_ns, self._compute_ns = count, queue_ns, compute_ns


def _translated(error: grpc.aio.AioRpcError, label: str) -> BackendError:
    code, sentence = error.code(), (error.details() or "").splitlines()
    detail = sentence[0] if sentence else code.name
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return BackendTimeout(f"{label} did not answer in time.")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return BackendRejectedInput(f"{label} rejects the input: {detail}")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
        return BackendUnavailable(f"{label} cannot be reached: {detail}")
    return BackendFailed(f"{label} failed with {code.name}: {detail}")
