"""Makes one call on one backend: the payload that it takes, its turn, its permit, what it costs, and its time limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from router.admission import Admission, Waiter
from router.cascade import Rows, select_rows
from router.errors import (
    BackendError,
    BackendFailed,
    BackendLost,
    BackendTimeout,
    BackendUnavailable,
    FailedTogether,
    NotBegun,
    Overloaded,
    RouterError,
)
from router.instance import Permit
from router.model import ModelSpec, Tensors
from router.plan import Attempt
from router.ports import Call, Preprocess
from router.target import Target
from router.types import AttemptRecord, EncodedImage, InferenceRequest, Payload, Reply, nbytes, row_count

log = logging.getLogger(__name__)


class Dispatch:
    """Sends one request to backends.

    Args:
        request: The request.
        model: Its model's spec.
        deadline: Monotonic seconds.
        clock: Gives monotonic seconds.
        preprocess: Runs image stages.

    Attributes:
        request, model, deadline, clock: As given.
    """

    __slots__ = ("_preprocess", "_tensors", "clock", "deadline", "model", "request")

    def __init__(
        self,
        request: InferenceRequest,
        model: ModelSpec,
        deadline: float,
        clock: Callable[[], float],
        preprocess: Preprocess,
    ) -> None:
        self.request = request
        self.model = model
        self.deadline = deadline
        self.clock = clock
        self._preprocess = preprocess
        self._tensors: Tensors | None = None if isinstance(request.payload, EncodedImage) else request.payload

    async def call(
        self, attempt: Attempt, target: Target, record: AttemptRecord, limit: float, rows: Rows | None, *, trial: bool
    ) -> Reply:
        """Asks a backend once, and fills in the record.

        Args:
            attempt: What the plan says.
            target: Where.
            record: Of this attempt; says what became of it, whatever does.
            limit: When it is cut off, monotonic seconds.
            rows: The rows to ask for; None asks for all.
            trial: Whether it is made against a prediction that it does not fit, which its success refutes.

        Raises:
            BackendError: In one of its kinds: the next attempt may be made.
            RouterError: An error after which no other attempt makes sense.
        """
        instance = target.instance
        servable = instance.servable
        if not instance.breaker.admits or isinstance(servable, BackendError):
            raise BackendUnavailable(f"{attempt.backend} is not available: {instance.breaker.reason}")
        now = self.clock()
        if limit <= now:
            raise BackendTimeout(f"There is no time left to ask {attempt.backend}.")
        request = self.request
        payload, size = request.payload, request.payload_bytes
        if rows is not None or isinstance(payload, EncodedImage):
            payload = await self._payload(attempt, record, limit - now, rows)
            size = nbytes(payload)
            now = self.clock()
            if limit <= now:
                raise BackendTimeout(f"The image's stages left no time to ask {attempt.backend}.")
        waiter = instance.admission.enter(request.priority, limit, now, attempt.mostly_s)
        waited_s = 0.0 if waiter is None else await self._wait(instance.admission, waiter, attempt, limit)
        with Permit(instance, record, self.clock, limit) as permit:
            if not instance.breaker.admits:
                raise BackendUnavailable(f"{attempt.backend} is not available: {instance.breaker.reason}")
            inferences = row_count(payload, self.model)
            charged = target.charge(record, size, inferences)
            call = Call(
                payload,
                size,
                inferences,
                request.id,
                request.parameters,
                permit.answered_late,
                request.data_class,
                request.priority,
            )
            try:
                try:
                    reply = await instance.limits.within(limit - self.clock(), servable.infer(call, limit))
                except (FailedTogether, NotBegun) as error:
                    # It left the premises, and may have been worked on: what is sent again is counted again.
                    again = target.charge(record, size, inferences)
                    if isinstance(error, NotBegun):
                        target.refund(record, charged)
                    call.alone, charged = True, again
                    reply = await instance.limits.within(limit - self.clock(), servable.infer(call, limit))
            except BaseException as error:
                self._translate(error, attempt, target, record, limit, charged)
                raise
            check_reply(reply, self.model, inferences, attempt, self.clock() > self.deadline)
            if trial:
                instance.latency.vouched(size)
            record.queue_s, record.network_s, record.compute_s = reply.queue_s, reply.network_s, reply.compute_s
        record.queue_s += waited_s  # after the permit: how long others made it wait says nothing about the backend
        return reply

    def _translate(
        self,
        error: BaseException,
        attempt: Attempt,
        target: Target,
        record: AttemptRecord,
        limit: float,
        charged: float,
    ) -> None:
        """Raises what a call on a backend ended in in our own words, unless it is in them already.

        Raises:
            BackendError: In their place.
        """
        breaker = target.instance.breaker
        if isinstance(error, TimeoutError):
            if breaker.admits or self.clock() >= limit:
                raise BackendTimeout(f"{attempt.backend} did not answer in time.") from None
            raise BackendLost(f"{attempt.backend} was found to be gone: {breaker.reason}.") from None
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return
            raise BackendLost(f"{attempt.backend} gave the call up by itself.") from None
        if isinstance(error, BackendUnavailable | Overloaded):
            target.refund(record, charged)
        if isinstance(error, RouterError) or not isinstance(error, Exception):
            return
        log.error("%s raised what its contract does not allow", attempt.backend, exc_info=error)
        raise BackendFailed(f"{attempt.backend} failed: {error}") from error

    async def _wait(self, admission: Admission, waiter: Waiter, attempt: Attempt, limit: float) -> float:
        """Waits until the backend has room for one more call. Returns the seconds that it took.

        Raises:
            Overloaded: It has none, and would not in time.
        """
        asked = self.clock()
        try:
            async with asyncio.timeout(limit - asked):
                await waiter.admitted
        except BaseException as error:
            now = self.clock()
            admission.abandon(waiter, now)
            if isinstance(error, TimeoutError):
                raise Overloaded(
                    f"{attempt.backend} had no room before the deadline; retry later or send less.",
                    retry_after_s=admission.retry_after(now),
                ) from None
            raise
        return self.clock() - asked

    async def _payload(self, attempt: Attempt, record: AttemptRecord, seconds: float, rows: Rows | None) -> Payload:
        """What this attempt sends: the request's payload, staged if the attempt says so, less the rows answered."""
        image = self.request.payload
        if isinstance(image, EncodedImage):
            if not attempt.stages:
                return image
            if self._tensors is None:
                self._tensors = await self._stage(image, record, seconds)
        assert self._tensors is not None
        return self._tensors if rows is None else select_rows(self._tensors, rows)

    async def _stage(self, image: EncodedImage, record: AttemptRecord, seconds: float) -> Tensors:
        spec = self.model.image
        assert spec is not None, "the front refuses images for models without stages"
        started = self.clock()
        try:
            async with asyncio.timeout(seconds):
                tensors = await asyncio.to_thread(self._preprocess, image, spec, self.model)
        except TimeoutError:
            raise BackendTimeout(f"The image's stages did not end within {seconds:.3f} s.") from None
        except RouterError as error:
            record.error = error.code
            raise
        record.stages_s = self.clock() - started
        return tensors


def check_reply(reply: Reply, model: ModelSpec, rows: int, attempt: Attempt, late: bool) -> None:
    """Refuses an answer that came too late, that lacks an output, or that is not one row for each row asked.

    Raises:
        BackendTimeout: It came after the deadline.
        BackendFailed: It lacks an output, or has other rows.
    """
    if late:
        raise BackendTimeout(f"{attempt.backend} answered after the deadline.")
    for name in model.outputs:
        tensor = reply.outputs.get(name)
        if tensor is None:
            raise BackendFailed(f"{attempt.backend} gave no {name!r}.")
        if model.batchable and tensor.shape[:1] != (rows,):
            raise BackendFailed(f"{attempt.backend} gave {name!r} as {list(tensor.shape)} for {rows} rows.")
