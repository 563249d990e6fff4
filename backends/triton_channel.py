"""The connection to one Triton server: one channel for all calls, its settings made together, replaced when stuck."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
from tritonclient.grpc import service_pb2_grpc

from backends.server import ABANDONED_FOR_S, CLOSE_GRACE_S, MAX_MESSAGE_BYTES, seconds_until
from router.errors import BackendLost, BackendTimeout

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # gRPC's default backs off up to two minutes, and would stay away that long after the WAN is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Also how long one attempt to connect may take: several round trips with TLS.
    ("grpc.min_reconnect_backoff_ms", 1000),
    # Subchannels are shared across the process otherwise, and a new channel would inherit a stuck connection.
    ("grpc.use_local_subchannel_pool", 1),
    # By default a name that could not be resolved is asked for again after half a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # No keepalive pings: the probes carry data more often than any ping would, and servers strike eager pings.
)


class TritonChannel:
    """One channel. It connects when it is first used: no network is needed to make it.

    To be made inside the running loop.

    Args:
        url: `grpc://host:port`, or `grpcs://host:port` for TLS with the system's certificate authorities.

    Attributes:
        stub: Makes the calls; another one after `renew`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._retired: grpc.aio.Channel | None = None
        self._abandoned: set[asyncio.Task[None]] = set()
        self._connect()

    async def renew(self, stub: Any) -> None:
        """Replaces the channel that `stub` uses, unless that was done already.

        A channel can be stuck on a connection that nobody answers any more, for as long as the kernel keeps trying.
        What is under way on it may still end; it is closed with the next renewal.
        """
        if stub is not self.stub:
            return
        before, self._retired = self._retired, self._channel
        self._connect()
        if before is not None:
            await before.close()

    async def infer(self, request: Any, deadline: float, late: Callable[[float], None] | None) -> Any:
        """Sends one ModelInferRequest and waits for its response until the deadline.

        An inference that nobody waits for any more is left to end by itself, not cancelled: Triton up to 25.02
        can crash when a cancellation meets the end of the inference (docs/decisions/0011), and what a server has begun
        it finishes anyway. What still waits in the server's queue is dropped there by the request's own timeout.

        Args:
            request: The request.
            deadline: Monotonic seconds.
            late: Told how many seconds an abandoned inference took after all.

        Raises:
            BackendTimeout: The deadline passed.
            grpc.aio.AioRpcError: The RPC failed.
        """
        seconds = seconds_until(deadline)
        if seconds <= 0:
            raise BackendTimeout("The deadline passed before the request could be sent.")
        loop = asyncio.get_running_loop()
        call = self.stub.ModelInfer(request, timeout=seconds + ABANDONED_FOR_S)
        over: asyncio.Future[None] = loop.create_future()
        started = loop.time()

        def end(_: object = None) -> None:
            if not over.done():
                over.set_result(None)

        call.add_done_callback(end)
        timer = loop.call_later(seconds, end)
        try:
            await over
        finally:
            timer.cancel()
            if not call.done():
                leaving = loop.create_task(_see_off(call, started, late), name="abandoned")
                self._abandoned.add(leaving)
                leaving.add_done_callback(self._abandoned.discard)
        if not call.done():
            raise BackendTimeout("The server did not answer in time.")
        with lost_if_replaced():
            return await call

    async def close(self) -> None:
        """Closes the channel, once the inferences that were abandoned have ended, within reason."""
        if self._abandoned:
            _, lasting = await asyncio.wait(self._abandoned, timeout=CLOSE_GRACE_S)
            for task in lasting:
                task.cancel()
            await asyncio.gather(*lasting, return_exceptions=True)
        for channel in (self._channel, self._retired):
            if channel is not None:
                await channel.close()

    def _connect(self) -> None:
        target = urlsplit(self._url).netloc
        if self._url.startswith("grpcs:"):
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)


@contextlib.contextmanager
def lost_if_replaced() -> Iterator[None]:
    """Says that the connection is lost where gRPC says cancelled, as it does of all calls on a channel that closes.

    Raises:
        BackendLost: The channel was closed. Where the task itself is being cancelled, that goes on.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise BackendLost("The connection was given up while the call was under way.") from None


async def _see_off(call: Any, started: float, late: Callable[[float], None] | None) -> None:
    """Holds an abandoned call until it ends: one that nobody holds would be cancelled by its finalizer."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call
        if late is not None:
            late(asyncio.get_running_loop().time() - started)
