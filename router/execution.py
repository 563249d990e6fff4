"""Carries a plan out: attempt after attempt, each within its cut-off, until an answer is final."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from router.cascade import Rows, confident_rows, merge_rows, select_rows
from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    DeadlineExceeded,
    NoBackendAvailable,
    Outcome,
    RouterError,
)
from router.instance import Target
from router.plan import Attempt, cut_off
from router.ports import Call, Preprocess
from router.types import (
    AttemptRecord,
    EncodedImage,
    InferenceRequest,
    ModelSpec,
    Payload,
    Reply,
    Tensor,
    Tensors,
    nbytes,
    row_count,
)
from router.within import within

log = logging.getLogger(__name__)

UNCONFIDENT = "unconfident"

Step = tuple[Attempt, Target]


@dataclass(slots=True)
class Answer:
    """What execution came to.

    Args:
        outputs: The model's outputs.
        attempt: The attempt that gave them; of a cascade, the last one that gave rows of them.
        degraded: Whether it is a lesser answer.
        reason: What happened on the way that the plan did not say, or empty.
    """

    outputs: dict[str, Tensor]
    attempt: Attempt
    degraded: bool
    reason: str


class Execution:
    """One request on its way through the steps of its plan.

    Args:
        request: The request.
        model: Its model's spec.
        deadline: Monotonic seconds.
        clock: Gives monotonic seconds.
        preprocess: Runs image stages.

    Attributes:
        attempts: A record of every attempt so far, in order.
    """

    __slots__ = (
        "_clock",
        "_deadline",
        "_held",
        "_model",
        "_pending",
        "_preprocess",
        "_request",
        "_tensors",
        "attempts",
    )

    def __init__(
        self,
        request: InferenceRequest,
        model: ModelSpec,
        deadline: float,
        clock: Callable[[], float],
        preprocess: Preprocess,
    ) -> None:
        self._request = request
        self._model = model
        self._deadline = deadline
        self._clock = clock
        self._preprocess = preprocess
        self._tensors: Tensors | None = None if isinstance(request.payload, EncodedImage) else request.payload
        self._held: Answer | None = None
        self._pending: Rows | None = None
        self.attempts: list[AttemptRecord] = []

    async def run(self, steps: tuple[Step, ...]) -> Answer:
        """Tries the steps in order.

        Raises:
            DeadlineExceeded: The deadline passed first.
            BackendRejectedInput: The last that could be asked says that the input is wrong.
            NoBackendAvailable: Every attempt failed.
            RouterError: An error after which no other attempt makes sense.
        """
        last: BackendError | None = None
        for attempt, target in steps:
            record = AttemptRecord(attempt.backend, Outcome.IGNORE)
            self.attempts.append(record)
            try:
                reply = await self._try(attempt, target, record)
            except BackendError as error:
                record.error = error.code
                last = error
            else:
                answer = self._take(attempt, reply.outputs, record)
                if answer is not None:
                    return answer
        if self._held is not None:
            self._held.degraded = True
            self._held.reason = f"; below the threshold, and no other backend answered{self._mishaps()}"
            return self._held
        raise self._failure(last)

    async def _try(self, attempt: Attempt, target: Target, record: AttemptRecord) -> Reply:
        instance = target.instance
        if not instance.breaker.admits or isinstance(instance.servable, BackendError):
            raise BackendUnavailable(f"{attempt.backend} is not available: {instance.breaker.reason}")
        now = self._clock()
        limit = cut_off(self._deadline, now, attempt.reserve_s)
        if limit <= now:
            raise BackendTimeout(f"There is no time left to ask {attempt.backend}.")
        payload = await self._payload(attempt, record, limit - now)
        seconds = limit - self._clock()
        if seconds <= 0:
            raise BackendTimeout(f"The image's stages left no time to ask {attempt.backend}.")
        with instance.permit(record, self._clock, limit):
            size = self._request.payload_bytes if payload is self._request.payload else nbytes(payload)
            target.charge(record, size, row_count(payload, self._model))
            call = Call(payload, size, self._request.id, self._request.parameters)
            try:
                reply = await within(seconds, instance.servable.infer(call, limit))
            except TimeoutError:
                raise BackendTimeout(f"{attempt.backend} did not answer within {seconds:.3f} s.") from None
            except BackendUnavailable:
                record.cost_usd = 0.0
                raise
            except RouterError:
                raise
            except Exception as error:
                log.exception("%s raised what its contract does not allow", attempt.backend)
                raise BackendFailed(f"{attempt.backend} failed: {error}") from error
            self._check(reply, payload, attempt)
            record.queue_s, record.network_s, record.compute_s = reply.queue_s, reply.network_s, reply.compute_s
            return reply

    def _check(self, reply: Reply, payload: Payload, attempt: Attempt) -> None:
        """Refuses an answer that came too late, or that is not one row for each row asked."""
        if self._clock() > self._deadline:
            raise BackendTimeout(f"{attempt.backend} answered after the deadline.")
        if self._model.batchable:
            rows = row_count(payload, self._model)
            for name in self._model.outputs:
                if len(reply.outputs[name]) != rows:
                    raise BackendFailed(f"{attempt.backend} gave {len(reply.outputs[name])} rows for {rows}.")

    async def _payload(self, attempt: Attempt, record: AttemptRecord, seconds: float) -> Payload:
        """What this attempt sends: the request's payload, staged if the attempt says so, less the rows answered."""
        image = self._request.payload
        if isinstance(image, EncodedImage):
            if not attempt.stages:
                return image
            if self._tensors is None:
                self._tensors = await self._stage(image, record, seconds)
        assert self._tensors is not None
        return self._tensors if self._pending is None else select_rows(self._tensors, self._pending)

    async def _stage(self, image: EncodedImage, record: AttemptRecord, seconds: float) -> Tensors:
        spec = self._model.image
        assert spec is not None, "the front refuses images for models without stages"
        started = self._clock()
        try:
            tensors = await within(seconds, asyncio.to_thread(self._preprocess, image, spec, self._model))
        except TimeoutError:
            raise BackendTimeout(f"The image's stages did not end within {seconds:.3f} s.") from None
        except RouterError as error:
            record.error = error.code
            raise
        record.stages_s = self._clock() - started
        return tensors

    def _take(self, attempt: Attempt, outputs: dict[str, Tensor], record: AttemptRecord) -> Answer | None:
        """Merges an attempt's rows into what is held. Returns the answer if all of it is final now."""
        if self._held is not None and self._pending is not None:
            outputs = merge_rows(self._held.outputs, self._pending, outputs)
        answer = Answer(outputs, attempt, attempt.degraded, self._mishaps())
        if attempt.accept_if is None:
            return answer
        final = confident_rows(outputs, self._model, attempt.accept_if)
        if final.all():
            return answer
        record.error = UNCONFIDENT
        self._held = answer
        self._pending = ~final if self._model.batchable else None
        return None

    def _mishaps(self) -> str:
        """What went wrong so far, in words; empty if nothing did."""
        if len(self.attempts) == 1 and self.attempts[0].error is None:
            return ""
        failed = [
            f"{record.backend}: {record.error}" for record in self.attempts if record.error not in (None, UNCONFIDENT)
        ]
        return f"; {', '.join(failed)}" if failed else ""

    def _failure(self, last: BackendError | None) -> RouterError:
        if self._clock() >= self._deadline or isinstance(last, BackendTimeout):
            budget_ms = (self._deadline - self._request.arrived) * 1000
            return DeadlineExceeded(
                f"No permitted backend answered within the deadline of {budget_ms:.0f} ms{self._mishaps()}. "
                "Allow more time, or see /status for the backends' latencies."
            )
        if isinstance(last, BackendRejectedInput):
            return last
        return NoBackendAvailable(
            f"Every permitted backend failed{self._mishaps()}. Retry later, or see /status for their health.",
            retry_after_s=1.0,
        )
