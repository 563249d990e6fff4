"""Carries a plan out: attempt after attempt, each within its cut-off, until an answer is final."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.admission import Admission
from router.cascade import Rows, confident_rows, merge_rows, select_rows
from router.deployment import Shares
from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    DeadlineExceeded,
    NoBackendAvailable,
    Outcome,
    Overloaded,
    RouterError,
)
from router.instance import CANCELLED, Target
from router.plan import Attempt, cut_off
from router.ports import Call, Preprocess
from router.share import TrafficShare
from router.types import (
    ON_PREMISES,
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
"""How a record names an answer that was not final."""

HEDGE_LOST = "hedge-lost"
"""How a record names a call whose answer came second."""

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


@dataclass(frozen=True, slots=True)
class Extras:
    """What may be sent on top of the traffic, and is taken out of here before it is.

    Args:
        hedges: Second attempts that start before the first has ended.
        retries: Second attempts on a backend that could not be reached.
        explorations: Requests that take a plan's other order.
    """

    hedges: TrafficShare
    retries: TrafficShare
    explorations: TrafficShare

    def deposit(self) -> None:
        """A request came."""
        self.hedges.deposit()
        self.retries.deposit()
        self.explorations.deposit()


EXTRAS_AT_ONCE = 10
"""How many of a kind may follow one another after a quiet time."""


def new_extras(shares: Shares) -> Extras:
    """Extras of these shares, of which none was used yet."""
    return Extras(
        *(TrafficShare(share, EXTRAS_AT_ONCE) for share in (shares.hedges, shares.retries, shares.explorations))
    )


class Execution:
    """One request on its way through the steps of its plan.

    Args:
        request: The request.
        model: Its model's spec.
        deadline: Monotonic seconds.
        clock: Gives monotonic seconds.
        preprocess: Runs image stages.
        extras: What hedges and retries are taken out of.

    Attributes:
        attempts: A record of every attempt so far, in the order in which they began.
    """

    __slots__ = (
        "_clock",
        "_deadline",
        "_extras",
        "_held",
        "_last",
        "_model",
        "_notes",
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
        extras: Extras,
    ) -> None:
        self._request = request
        self._model = model
        self._deadline = deadline
        self._clock = clock
        self._preprocess = preprocess
        self._extras = extras
        self._tensors: Tensors | None = None if isinstance(request.payload, EncodedImage) else request.payload
        self._held: Answer | None = None
        self._pending: Rows | None = None
        self._last: BackendError | None = None
        self._notes = ""
        self.attempts: list[AttemptRecord] = []

    async def run(self, steps: tuple[Step, ...]) -> Answer:
        """Tries the steps in order, those without enough time left out, some of them side by side.

        Raises:
            DeadlineExceeded: The deadline passed first.
            BackendRejectedInput: The last that could be asked says that the input is wrong.
            NoBackendAvailable: Every attempt failed.
            RouterError: An error after which no other attempt makes sense.
        """
        attempts = [attempt for attempt, _ in steps]
        index = 0
        while index < len(steps):
            attempt, target = steps[index]
            limit = self._limit(attempts, index)
            index += 1
            if limit is None:
                continue
            if attempt.hedge_after is None or index == len(steps):
                answer = await self._attempt(attempt, target, limit)
            else:
                answer, index = await self._race(steps, attempts, index - 1, limit)
            if answer is not None:
                return answer
        if self._held is not None:
            self._held.degraded = True
            self._held.reason = f"; below the threshold, and no other backend answered{self._mishaps()}"
            return self._held
        raise self._failure(self._last)

    def _limit(self, attempts: Sequence[Attempt], index: int) -> float | None:
        """When this attempt must end; None if its turn is skipped for want of time, which is noted."""
        now = self._clock()
        limit = cut_off(attempts, index, now, self._deadline)
        expected_s = attempts[index].expected_s
        if limit is None or (self._held is not None and now + expected_s > limit):
            left_ms = (self._deadline - now) * 1000
            self._notes += (
                f"; no time for {attempts[index].backend}, which usually takes {expected_s * 1000:.0f} ms, "
                f"with {left_ms:.0f} ms left"
            )
            return None
        return limit

    async def _race(
        self, steps: tuple[Step, ...], attempts: Sequence[Attempt], index: int, limit: float
    ) -> tuple[Answer | None, int]:
        """Runs a step, and the next beside it if it does not answer in time to do without. The first answer wins.

        Returns:
            The answer or None, and the index of the step that is next.
        """
        try:
            async with asyncio.TaskGroup() as race:
                leading = race.create_task(self._attempt(*steps[index], limit))
                await asyncio.wait((leading,), timeout=attempts[index].hedge_after)
                if leading.done() or not self._extras.hedges.withdraw():
                    return await leading, index + 1
                limit_behind = self._limit(attempts, index + 1)
                if limit_behind is None:
                    return await leading, index + 1
                hedge = race.create_task(self._attempt(*steps[index + 1], limit_behind, hedged=True))
                answer = await _first_answer(leading, hedge)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for record in self.attempts:
            if record.error == CANCELLED:
                record.error = HEDGE_LOST
        return answer, index + 2

    async def _attempt(self, attempt: Attempt, target: Target, limit: float, *, hedged: bool = False) -> Answer | None:
        """One attempt, and a second one where the backend could not be reached and the share of retries allows it.

        Returns:
            An answer if it is final; None after a failure, and for an answer that is held.
        """
        retried = False
        while True:
            record = AttemptRecord(attempt.backend, Outcome.IGNORE, hedged=hedged)
            self.attempts.append(record)
            rows = self._pending
            try:
                reply = await self._try(attempt, target, record, limit)
            except BackendError as error:
                record.error = error.code
                self._last = error
                if retried or not self._may_retry(error, attempt, target, limit):
                    return None
                retried = True
            else:
                return self._take(attempt, reply.outputs, rows, record)

    def _may_retry(self, error: BackendError, attempt: Attempt, target: Target, limit: float) -> bool:
        """Whether to ask again: only what no server has begun, only where a network lies between, only in time."""
        return (
            isinstance(error, BackendUnavailable)
            and target.entry.site != ON_PREMISES
            and target.instance.breaker.admits
            and self._clock() + attempt.expected_s < limit
            and self._extras.retries.withdraw()
        )

    async def _try(self, attempt: Attempt, target: Target, record: AttemptRecord, limit: float) -> Reply:
        instance = target.instance
        if not instance.breaker.admits or isinstance(instance.servable, BackendError):
            raise BackendUnavailable(f"{attempt.backend} is not available: {instance.breaker.reason}")
        now = self._clock()
        if limit <= now:
            raise BackendTimeout(f"There is no time left to ask {attempt.backend}.")
        payload = await self._payload(attempt, record, limit - now)
        if limit <= self._clock():
            raise BackendTimeout(f"The image's stages left no time to ask {attempt.backend}.")
        await self._turn(instance.admission, attempt, record, limit)
        with instance.permit(record, self._clock, limit):
            seconds = max(0.0, limit - self._clock())
            size = self._request.payload_bytes if payload is self._request.payload else nbytes(payload)
            target.charge(record, size, row_count(payload, self._model))
            call = Call(
                payload,
                size,
                self._request.id,
                self._request.parameters,
                lambda took_s: instance.answered_late(self._clock(), size, took_s),
            )
            try:
                reply = await within(seconds, instance.servable.infer(call, limit), instance.waiting)
            except TimeoutError:
                raise BackendTimeout(f"{attempt.backend} did not answer in time, or is known to be gone.") from None
            except BackendUnavailable:
                target.refund(record)
                raise
            except RouterError:
                raise
            except Exception as error:
                log.exception("%s raised what its contract does not allow", attempt.backend)
                raise BackendFailed(f"{attempt.backend} failed: {error}") from error
            self._check(reply, payload, attempt)
            record.queue_s += reply.queue_s
            record.network_s, record.compute_s = reply.network_s, reply.compute_s
            return reply

    async def _turn(self, admission: Admission, attempt: Attempt, record: AttemptRecord, limit: float) -> None:
        """Waits until the backend has room for one more call.

        Raises:
            Overloaded: It has none, and would not in time.
        """
        asked = self._clock()
        waiter = admission.enter(self._request.priority, limit, asked, attempt.mostly_s)
        if waiter is None:
            return
        try:
            async with asyncio.timeout(limit - asked):
                await waiter.admitted
        except BaseException as error:
            now = self._clock()
            admission.abandon(waiter, now)
            if isinstance(error, TimeoutError):
                raise Overloaded(
                    f"{attempt.backend} had no room before the deadline; retry later or send less.",
                    retry_after_s=admission.retry_after(now),
                ) from None
            raise
        record.queue_s = self._clock() - asked

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

    def _take(
        self, attempt: Attempt, outputs: dict[str, Tensor], rows: Rows | None, record: AttemptRecord
    ) -> Answer | None:
        """Merges the rows that an attempt was asked for into what is held. Returns the answer if all is final now."""
        if self._held is not None and rows is not None:
            outputs = merge_rows(self._held.outputs, rows, outputs)
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
            return self._notes
        failed = [
            f"{record.backend}: {record.error}" for record in self.attempts if record.error not in (None, UNCONFIDENT)
        ]
        return f"{self._notes}; {', '.join(failed)}" if failed else self._notes

    def _failure(self, last: BackendError | None) -> RouterError:
        if self._clock() >= self._deadline or isinstance(last, BackendTimeout):
            budget_ms = (self._deadline - self._request.arrived) * 1000
            return DeadlineExceeded(
                f"No permitted backend answered within the deadline of {budget_ms:.0f} ms{self._mishaps()}. "
                "Allow more time, or see /status for the backends' latencies."
            )
        if isinstance(last, BackendRejectedInput | Overloaded):
            return last
        return NoBackendAvailable(
            f"Every permitted backend failed{self._mishaps()}. Retry later, or see /status for their health.",
            retry_after_s=1.0,
        )


async def _first_answer(leading: asyncio.Task[Answer | None], hedge: asyncio.Task[Answer | None]) -> Answer | None:
    """The answer of whichever has one first; the other is cancelled then. None if neither has."""
    running = {leading, hedge}
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in (leading, hedge):
            answer = task.result() if task in done else None
            if answer is not None:
                for loser in running:
                    loser.cancel()
                return answer
    return None
