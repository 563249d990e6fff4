"""Asks a Triton Inference Server, or any server of the same protocol, over gRPC.

It uses the stubs that tritonclient generates but a channel of its own: one channel carries all calls, its
settings are made together, and it can be replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from backends.oip import bytes_tensor
from backends.triton_channel import TritonChannel, lost_if_replaced, seconds_until
from backends.triton_messages import Served, declared_outputs, infer_request, translated
from router.errors import BackendRejectedInput, BackendUnavailable
from router.model import ModelSpec, Tensor, Tensors
from router.ports import BackendContext, Call, synthetic_call
from router.types import EncodedImage, Reply, row_count

MAX_BATCHES_AT_ONCE = 16
"""Requests that a large batch is sent as at a time: enough to keep a server's own batching busy."""

MAX_BATCHES = 256
"""Requests that one batch may be sent as; a larger one is the caller's to divide."""

RENEW_AFTER = 3
"""Probes in a row that find nobody there before the channel is replaced."""


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
            complete = parts.scheme in ("grpc", "grpcs") and parts.hostname and parts.port and not parts.path
        except ValueError:
            complete = False
        if not complete:
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
    on_device: ClassVar[bool] = False

    def __init__(self, options: TritonOptions, context: BackendContext) -> None:
        self._url = options.url
        self._channel: TritonChannel | None = None

    async def open(self, model: ModelSpec, variant: TritonVariant) -> TritonServable:
        """Makes the channel, which connects when it is first used: no network is needed to open."""
        if self._channel is None:
            self._channel = TritonChannel(self._url)
        return TritonServable(self._channel, model, variant)

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

    def __init__(self, channel: TritonChannel, model: ModelSpec, variant: TritonVariant) -> None:
        self._channel = channel
        self._model = model
        self._variant = variant
        names = (variant.name, *([variant.encoded_image.name] if variant.encoded_image else []))
        self._served = {name: Served() for name in names}
        self._rtt_s = 0.0
        self._max_rows = 0
        self._batches = asyncio.Semaphore(MAX_BATCHES_AT_ONCE)
        self._failed_probes = 0

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
            outputs = await self._ask_in_batches(call, call.payload, deadline)
        elapsed = time.monotonic() - started
        queue, compute = self._served[model].means(max(0.0, elapsed - self._rtt_s))
        compute = min(elapsed, compute)
        queue = min(elapsed - compute, queue)
        return Reply(outputs, queue, elapsed - compute - queue, compute)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Asks whether the model is ready, which measures the round trip, and reads its statistics.

        A synthetic probe reads how many rows the server takes at a time, and makes an inference on zeros. When several
        in a row find nobody there, the channel is replaced.
        """
        stub = self._channel.stub
        try:
            with lost_if_replaced():
                if synthetic:
                    await self._read_config(stub, deadline)
                else:
                    await self._read_state(stub, deadline)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                self._failed_probes += 1
                # A channel whose name could not be resolved waits longer and longer before it asks again.
                if self._failed_probes % RENEW_AFTER == 0 or "resolution" in (error.details() or ""):
                    await self._channel.renew(stub)
            said = translated(error, self._variant.label)
            if isinstance(said, BackendRejectedInput):  # nothing was put in: so it says that it has no such model
                said = BackendUnavailable(said.detail)
            raise said from error
        self._failed_probes = 0
        return await self.infer(synthetic_call(self._model), deadline) if synthetic else None

    async def _read_state(self, stub: Any, deadline: float) -> None:
        """Readiness and statistics at once: over a slow WAN, one round trip rather than two or three."""
        try:
            async with asyncio.TaskGroup() as asking:
                ready = asking.create_task(self._check_ready(stub, deadline))
                for name, served in self._served.items():
                    asking.create_task(self._read_statistics(stub, name, served, deadline))
        except ExceptionGroup as errors:
            raise first(errors) from None
        ready.result()  # raises if gRPC cancelled it, which a group takes for an end like any other

    async def _check_ready(self, stub: Any, deadline: float) -> None:
        started = time.monotonic()
        request = service_pb2.ModelReadyRequest(name=self._variant.name, version=self._variant.version)
        ready = await stub.ModelReady(request, timeout=seconds_until(deadline))
        if not ready.ready:
            raise BackendUnavailable(f"The server says that {self._variant.label} is not ready.")
        self._rtt_s = time.monotonic() - started

    async def _read_statistics(self, stub: Any, name: str, served: Served, deadline: float) -> None:
        request = service_pb2.ModelStatisticsRequest(name=name)
        served.learn(await stub.ModelStatistics(request, timeout=seconds_until(deadline)))

    async def _read_config(self, stub: Any, deadline: float) -> None:
        request = service_pb2.ModelConfigRequest(name=self._variant.name, version=self._variant.version)
        answer = await stub.ModelConfig(request, timeout=seconds_until(deadline))
        self._max_rows = answer.config.max_batch_size

    async def close(self) -> None:
        """Nothing to do: the channel is the backend's."""

    async def _ask_in_batches(self, call: Call, tensors: Tensors, deadline: float) -> dict[str, Tensor]:
        rows, most = row_count(tensors, self._model), self._max_rows
        if not 0 < most < rows:
            return await self._ask(call, tensors, deadline, call.late)
        if rows > most * MAX_BATCHES:
            raise BackendRejectedInput(
                f"{self._variant.label} takes {most} rows at a time, and {rows} are too many for one request."
            )
        try:
            async with asyncio.TaskGroup() as asking:
                parts = [
                    asking.create_task(
                        self._ask_in_turn(
                            call,
                            {name: tensor[at : at + most] for name, tensor in tensors.items()},
                            deadline,
                            call.late if at + most >= rows else None,  # the last of them speaks for all
                        )
                    )
                    for at in range(0, rows, most)
                ]
        except ExceptionGroup as errors:
            raise first(errors) from None
        return {name: np.concatenate([part.result()[name] for part in parts]) for name in self._model.outputs}

    async def _ask_in_turn(
        self, call: Call, tensors: Tensors, deadline: float, late: Callable[[float], None] | None
    ) -> dict[str, Tensor]:
        async with self._batches:
            return await self._ask(call, tensors, deadline, late)

    async def _ask(
        self, call: Call, tensors: Tensors, deadline: float, late: Callable[[float], None] | None
    ) -> dict[str, Tensor]:
        seconds = seconds_until(deadline)
        if isinstance(call.payload, EncodedImage):
            assert self._variant.encoded_image is not None, "takes_image is False"
            request = infer_request(call, self._variant.encoded_image.name, "", tensors, seconds)
        else:
            request = infer_request(call, self._variant.name, self._variant.version, tensors, seconds)
        try:
            response = await self._channel.infer(request, deadline, late)
        except grpc.aio.AioRpcError as error:
            raise translated(error, self._variant.label) from error
        return declared_outputs(response, self._model, self._variant.label)


def first(group: BaseExceptionGroup[Any]) -> Any:
    """The first error of a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
