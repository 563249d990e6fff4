"""Carries a plan out: attempt after attempt, or side by side, each within its cut-off, until an answer is final."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from router.cascade import Rows, confident_rows, merge_rows
from router.dispatch import Dispatch
from router.errors import (
    BackendError,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    DeadlineExceeded,
    NoBackendAvailable,
    Outcome,
    Overloaded,
    RouterError,
)
from router.extras import Extras
from router.instance import CANCELLED
from router.model import Tensor
from router.plan import Attempt, cut_off
from router.target import Target
from router.types import ON_PREMISES, AttemptRecord, Reply, Role

UNCONFIDENT = "unconfident"
"""How a record names an answer that was not final."""

HEDGE_LOST = "hedge-lost"
"""How a record names a call whose answer came second."""

Step = tuple[Attempt, Target]

Tried = tuple[AttemptRecord, Reply | BackendError]
"""An attempt that was made: its record, and what came of it."""

Turn = tuple[float, bool]
"""An attempt's turn: until when, and whether it is made against the prediction that it does not fit."""


@dataclass(slots=True)
class Answer:
    """What execution came to.

    Args:
        outputs: The model's outputs.
        attempt: The attempt that gave them; of a cascade, the last one that gave rows of them.
        record: Its record.
        degraded: Whether it is a lesser answer.
        reason: What happened on the way that the plan did not say, or empty.
    """

    outputs: dict[str, Tensor]
    attempt: Attempt
    record: AttemptRecord
    degraded: bool
    reason: str


class Execution:
    """One request on its way through the steps of its plan.

    Args:
        dispatch: Makes the calls.
        extras: What hedges and retries are taken out of.

    Attributes:
        attempts: A record of every attempt so far, in the order in which they began.
    """

    __slots__ = ("_dispatch", "_extras", "_held", "_last", "_notes", "_pending", "attempts")

    def __init__(self, dispatch: Dispatch, extras: Extras) -> None:
        self._dispatch = dispatch
        self._extras = extras
        self._held: Answer | None = None
        self._pending: Rows | None = None
        self._last: BackendError | None = None
        self._notes = ""
        self.attempts: list[AttemptRecord] = []

    async def run(self, steps: tuple[Step, ...], first: Tried | None = None) -> Answer:
        """Tries the steps in order, those without enough time left out, some of them side by side.

        Args:
            steps: The steps.
            first: The first of them as it went, if it was made already.

        Raises:
            DeadlineExceeded: The deadline passed first.
            BackendRejectedInput: The last that could be asked says that the input is wrong.
            NoBackendAvailable: Every attempt failed.
            RouterError: An error after which no other attempt makes sense.
        """
        index = 0
        if first is not None:
            index = 1
            answer = self._first(steps[0][0], *first)
            if answer is not None:
                return answer
        while index < len(steps):
            turn = self._turn(steps, index)
            if turn is None:
                answer = None
                index += 1
            elif steps[index][0].hedge_after is None or index + 1 == len(steps):
                answer = await self._attempt(steps[index], turn, "fallback" if self.attempts else "first")
                index += 1
            else:
                answer, index = await self._race(steps, index, turn)
            if answer is not None:
                return answer
        if self._held is not None:
            self._held.degraded = True
            self._held.reason = f"; below the threshold, and no other backend answered{self._mishaps()}"
            return self._held
        raise self._failure(self._last)

    def _first(self, attempt: Attempt, record: AttemptRecord, reply: Reply | BackendError) -> Answer | None:
        """Takes in the first attempt, which was made already. Returns the answer if it is final."""
        self.attempts.append(record)
        if isinstance(reply, Reply):
            return self._take(attempt, reply.outputs, None, record)
        record.error = reply.code
        self._last = reply
        return None

    def _turn(self, steps: Sequence[Step], index: int) -> Turn | None:
        """When this attempt must end; None if its turn is skipped for want of time, which is noted."""
        now = self._dispatch.clock()
        attempt, target = steps[index]
        limit = cut_off(steps, index, now, self._dispatch.deadline)
        if limit is not None and (self._held is None or now + attempt.expected_s <= limit):
            return limit, False
        limit = self._dispatch.deadline - attempt.reserve_s
        instance = target.instance
        # The round trip is measured all the while; only what calls took beyond it has to be put to the test.
        testable = self._held is None and now + instance.latency.round_trip_s < limit
        if testable and instance.may_try(now, self._dispatch.request.payload_bytes):
            return limit, True
        self._notes += (
            f"; no time for {attempt.backend}, which usually takes {attempt.expected_s * 1000:.0f} ms, "
            f"with {(self._dispatch.deadline - now) * 1000:.0f} ms left"
        )
        return None

    async def _race(self, steps: tuple[Step, ...], index: int, turn: Turn) -> tuple[Answer | None, int]:
        """Runs a step, and the next beside it if it does not answer in time to do without. The first answer wins.

        Returns:
            The answer or None, and the index of the step that is next.
        """
        begun = len(self.attempts)
        try:
            async with asyncio.TaskGroup() as race:
                leading = race.create_task(self._attempt(steps[index], turn, "fallback" if begun else "first"))
                await asyncio.wait((leading,), timeout=steps[index][0].hedge_after)
                if leading.done() or not self._extras.may_hedge():
                    return await leading, index + 1
                turn_behind = self._turn(steps, index + 1)
                if turn_behind is None:
                    return await leading, index + 1
                hedge = race.create_task(self._attempt(steps[index + 1], turn_behind, "hedge"))
                answer = await _first_answer(leading, hedge)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for record in self.attempts[begun:]:
            if answer is not None and record is not answer.record and record.error in (None, CANCELLED):
                record.error = HEDGE_LOST
        return answer, index + 2

    async def _attempt(self, step: Step, turn: Turn, role: Role) -> Answer | None:
        """One attempt, and a second one where the backend could not be reached and the share of retries allows it.

        Returns:
            An answer if it is final; None after a failure, and for an answer that is held.
        """
        attempt, target = step
        limit, trial = turn
        while True:
            record = AttemptRecord(attempt.backend, Outcome.IGNORE, role=role)
            self.attempts.append(record)
            rows = self._pending
            try:
                reply = await self._dispatch.call(attempt, target, record, limit, rows, trial=trial)
            except BackendError as error:
                record.error = error.code
                self._last = error
                if role == "retry" or not self._may_retry(error, attempt, target, limit):
                    return None
                role = "retry"
            else:
                return self._take(attempt, reply.outputs, rows, record)

    def _may_retry(self, error: BackendError, attempt: Attempt, target: Target, limit: float) -> bool:
        """Whether to ask again: only what no server has begun, only where a network lies between, only in time."""
        return (
            isinstance(error, BackendUnavailable)
            and target.entry.site != ON_PREMISES
            and target.instance.breaker.admits
            and self._dispatch.clock() + attempt.expected_s < limit
            and self._extras.may_retry()
        )

    def _take(
        self, attempt: Attempt, outputs: dict[str, Tensor], rows: Rows | None, record: AttemptRecord
    ) -> Answer | None:
        """Merges the rows that an attempt was asked for into what is held. Returns the answer if all is final now."""
        if self._held is not None and rows is not None:
            outputs = merge_rows(self._held.outputs, rows, outputs)
        first = len(self.attempts) == 1 and record.error is None
        answer = Answer(outputs, attempt, record, attempt.degraded, self._notes if first else self._mishaps())
        if attempt.accept_if is None:
            return answer
        final = confident_rows(outputs, self._dispatch.model, attempt.accept_if)
        if final.all():
            return answer
        record.error = UNCONFIDENT
        self._held = answer
        self._pending = ~final if self._dispatch.model.batchable else None
        return None

    def _mishaps(self) -> str:
        """What went wrong so far, in words; empty if nothing did."""
        failed = [
            f"{record.backend}: {record.error}" for record in self.attempts if record.error not in (None, UNCONFIDENT)
        ]
        return f"{self._notes}; {', '.join(failed)}" if failed else self._notes

    def _failure(self, last: BackendError | None) -> RouterError:
        if self._dispatch.clock() >= self._dispatch.deadline or isinstance(last, BackendTimeout):
            budget_ms = (self._dispatch.deadline - self._dispatch.request.arrived) * 1000
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
