"""`ModelInfer` and `ModelStreamInfer`: decode, `Engine.infer`, encode.

The requests of a stream run side by side, up to `STREAM_DEPTH` of them, and are answered in the order in which they
came, as Triton does: clients pair answers with requests by it. An error is an answer like any other, and the stream
goes on. When a client hangs up, gRPC cancels the call's task, and everything under way for it with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2

from app.codec import oip_grpc
from app.rpc.answers import CountError, known_error, refuse
from router.engine import Engine
from router.errors import NoBackendAvailable, RouterError

STREAM_DEPTH: Final = 64
"""How many requests of one stream may be under way; the next one is only read when there is room for it."""

_STOPPING = "The gateway is about to stop; open the stream anew."


class Inference:
    """The two methods that infer.

    Args:
        engine: Answers the requests.
        count_error: Told of every error that is answered within a stream.
    """

    def __init__(self, engine: Engine, count_error: CountError) -> None:
        self._engine = engine
        self._count_error = count_error
        self._streams: set[_Stream] = set()
        self._closing = False

    async def infer(self, body: bytes, context: Any) -> bytes:
        """One request, one answer."""
        arrived = time.monotonic()
        message = oip_grpc.parse(service_pb2.ModelInferRequest, body)
        headers = oip_grpc.fact_headers(context.invocation_metadata())
        request, wanted = oip_grpc.decode(message, headers, self._engine, arrived, context.time_remaining())
        answer: bytes = oip_grpc.encode(await self._engine.infer(request), wanted).SerializeToString()
        return answer

    async def stream(self, _: object, context: Any) -> None:
        """Requests as they come, answers in the same order."""
        try:
            # An id or a deadline of the call would be that of the whole stream, and so no request's own.
            headers = oip_grpc.fact_headers(context.invocation_metadata())
            headers.pop(b"x-request-id", None)
        except RouterError as error:
            self._count_error(error)
            await refuse(context, error)

        async def answer(body: bytes, arrived: float) -> bytes:
            return await self._streamed(body, headers, arrived)

        if self._closing:
            await refuse(context, NoBackendAvailable(_STOPPING))
        stream = _Stream(context, answer)
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
        if self._closing:
            await refuse(context, NoBackendAvailable(_STOPPING))

    def close_streams(self) -> None:
        """Reads no more from streams; what they asked for is still answered, then they end."""
        self._closing = True
        for stream in self._streams:
            stream.stop_reading()

    async def _streamed(self, body: bytes, headers: dict[bytes, bytes], arrived: float) -> bytes:
        message = None
        answer = service_pb2.ModelStreamInferResponse()
        try:
            message = oip_grpc.parse(service_pb2.ModelInferRequest, body)
            request, wanted = oip_grpc.decode(message, headers, self._engine, arrived, None)
            answer.infer_response.CopyFrom(oip_grpc.encode(await self._engine.infer(request), wanted))
            answer.infer_response.parameters["triton_final_response"].bool_param = True
        except Exception as error:
            known = known_error(error)
            self._count_error(known)
            answer.error_message = known.detail
            answer.infer_response.id = message.id if message is not None else ""
        written: bytes = answer.SerializeToString()
        return written


class _Stream:
    """One stream: who reads its requests, and the answers in their order.

    Args:
        context: The call's.
        answer: Answers one request, given when it came; raises nothing but cancellation.
    """

    def __init__(self, context: Any, answer: Callable[[bytes, float], Awaitable[bytes]]) -> None:
        self._context = context
        self._answer = answer
        self._room = asyncio.Semaphore(STREAM_DEPTH)
        self._answers: asyncio.Queue[asyncio.Future[bytes] | None] = asyncio.Queue()
        self._under_way: set[asyncio.Future[bytes]] = set()
        self._reading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Answers until the client has no more requests; leaves nothing behind, however it ends."""
        self._reading = asyncio.create_task(self._read(), name="stream")
        # Not in the task itself: one that is cancelled before its first step never gets to say anything.
        self._reading.add_done_callback(lambda _: self._answers.put_nowait(None))
        try:
            while (answer := await self._answers.get()) is not None:
                await self._context.write(await answer)
                self._under_way.discard(answer)
                self._room.release()
        finally:
            self._reading.cancel()
            for left in self._under_way:
                left.cancel()
            await asyncio.gather(self._reading, *self._under_way, return_exceptions=True)

    def stop_reading(self) -> None:
        """Takes no more requests."""
        assert self._reading is not None, "run() comes first"
        self._reading.cancel()

    async def _read(self) -> None:
        while True:
            await self._room.acquire()
            body = await self._context.read()
            if body is grpc.aio.EOF:
                return
            answer = asyncio.ensure_future(self._answer(body, time.monotonic()))
            self._under_way.add(answer)
            self._answers.put_nowait(answer)
