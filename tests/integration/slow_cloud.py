"""A cloud that answers inferences only when it is let: what hangs, hangs for as long as a test needs it to.

A Triton that is stopped would be found out by the next probe, and no longer be asked.
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc


class SlowCloud(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Speaks to the gateway as Triton does, and knows the model `digits`. Use it in an `async with` block.

    Args:
        version: The version of Triton that it says it is.

    Attributes:
        url: Its address.
        asked: How many inferences it was asked for while it held them.
        cancelled: How many inferences were cancelled.
        quick: Set while it answers at once; cleared, it holds what it is asked.
    """

    def __init__(self, version: str = "2.51.0") -> None:
        self.url = ""
        self.asked = 0
        self.cancelled = 0
        self._version = version
        self.quick = asyncio.Event()
        self.quick.set()
        self._server: Any = None

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name="triton", version=self._version)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelStatisticsResponse()

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.ModelConfigResponse()
        answer.config.max_batch_size = 64
        return answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked += not self.quick.is_set()
        try:
            await self.quick.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        rows = request.inputs[0].shape[0]
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        answer.outputs.add(name="label", datatype="INT64", shape=[rows, 1])
        answer.outputs.add(name="probabilities", datatype="FP32", shape=[rows, 10])
        answer.raw_output_contents.append(np.zeros(rows, np.int64).tobytes())
        answer.raw_output_contents.append(np.zeros((rows, 10), np.float32).tobytes())
        return answer

    async def wait_asked(self, times: int) -> None:
        """Waits until it was asked so often while it held what it was asked."""
        async with asyncio.timeout(20):
            while self.asked < times:  # noqa: ASYNC110 it is asked from another process
                await asyncio.sleep(0.01)

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.quick.set()
        await self._server.stop(None)
