"""Requests for a server that are ready in the same turn of the event loop are sent as one.

To make and to read a call costs the loop several times what a further row in it costs. A lone request is sent at once,
and nobody waits for longer than the turn takes that they came in. Who may join whom, `batch.Queue` says. Beside that:

- Every caller learns exactly once what became of it, and not after its deadline. How another of the same call ends, and
  whether its caller is still there, changes nothing about that.
- A call of several that the server refuses, or fails at, tells them so, and each of them asks again by itself: only a
  bad one fails.
- What nobody waits for any more is left to end by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from backends.batch import Bounds, Member, Queue
from backends.server import CLOSE_GRACE_S
from backends.turns import Turns
from router.errors import (
    BackendError,
    BackendFailed,
    BackendLost,
    BackendRejectedInput,
    BackendTimeout,
    FailedTogether,
)
from router.model import Tensor, Tensors
from router.types import Reply

log = logging.getLogger(__name__)

Late = Callable[[float], None]

Send = Callable[[Tensors, float, Late], Coroutine[Any, Any, dict[str, Tensor]]]
"""Asks the server for these rows by a deadline in monotonic seconds; raises BackendError. Tells the seconds that
the answer took if it comes after that."""


class TurnSender(Turns):
    """Sends the requests for one model on one server.

    Args:
        send: Asks the server.
        reply: Makes a reply of outputs and of the seconds that they took.
        size: Bytes of input that may be sent together.
        clock: Gives monotonic seconds; the event loop's own.

    Attributes:
        most_rows: How many rows may be sent together; with less than 2, nothing is joined.
    """

    def __init__(
        self,
        send: Send,
        reply: Callable[[dict[str, Tensor], float], Reply],
        size: int,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self._send = send
        self._reply = reply
        self._clock = clock
        self._queue = Queue(Bounds(1, size), clock)
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def most_rows(self) -> int:
        return self._queue.bounds.rows

    @most_rows.setter
    def most_rows(self, rows: int) -> None:
        self._queue.bounds = Bounds(rows, self._queue.bounds.size)

    async def infer(self, inputs: Tensors, rows: int, size: int, deadline: float, late: Late | None) -> Reply:
        """Sends these inputs at the end of this turn, alone or with others.

        Args:
            inputs: The input tensors.
            rows: The first dimension of all of them.
            size: Their size in bytes.
            deadline: Monotonic seconds.
            late: Told the seconds that the answer took, if it came after the deadline.

        Raises:
            FailedTogether: A call of several failed; ask alone.
            BackendError: The call failed, or the deadline passed.
        """
        loop = self._running_loop()
        now = self._clock()
        promise: asyncio.Future[Reply | BackendError] = loop.create_future()
        member = Member(inputs, rows, size, deadline, now, promise, late)
        timer = loop.call_later(deadline - now, _give_up, member)
        self._queue.put(member)
        self._gather()
        try:
            answer = await promise
        finally:
            timer.cancel()
        if isinstance(answer, BackendError):
            raise answer
        return answer

    async def close(self) -> None:
        """Lets go of what nobody waits for any more, within reason."""
        if self._sending:
            _, lasting = await asyncio.wait(self._sending, timeout=CLOSE_GRACE_S)
            for task in lasting:
                task.cancel()
            await asyncio.gather(*lasting, return_exceptions=True)

    def _end(self) -> None:
        while members := self._queue.take():
            task = self._running_loop().create_task(self._ask(members), name="joined")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _ask(self, members: Sequence[Member]) -> None:
        """Sends what these want, and tells them what came of it."""
        began = self._clock()
        try:
            outputs = await self._outputs(members)
        except BackendError as error:
            several = len(members) > 1 and isinstance(error, BackendFailed | BackendRejectedInput)
            kind = FailedTogether if several else type(error)
            for member in members:
                _settle(member, kind(error.detail))  # each its own: a traceback grows wherever it is raised
        except asyncio.CancelledError:
            for member in members:
                _settle(member, BackendLost("The backend was closed while the call was under way."))
            raise
        except Exception as error:  # whoever waits must hear of it
            log.exception("a call failed in a way that nobody foresaw")
            for member in members:
                _settle(member, BackendFailed(f"The call could not be made: {error}"))
        else:
            self._hand_out(members, outputs, self._clock() - began)

    async def _outputs(self, members: Sequence[Member]) -> dict[str, Tensor]:
        deadline = max([member.deadline for member in members])

        def late(seconds: float) -> None:
            for member in members:
                if member.late is not None:
                    member.late(seconds)

        if len(members) == 1:
            return await self._send(members[0].inputs, deadline, late)
        names = members[0].inputs
        together = {name: np.concatenate([member.inputs[name] for member in members]) for name in names}
        outputs = await self._send(together, deadline, late)
        rows = sum([member.rows for member in members])
        for tensor in outputs.values():
            if len(tensor) != rows:
                raise BackendFailed(f"The server did not give {rows} rows for {rows}.")
        return outputs

    def _hand_out(self, members: Sequence[Member], outputs: dict[str, Tensor], seconds: float) -> None:
        begin = 0
        for member in members:
            end = begin + member.rows
            if not member.answer.done():
                own = {name: tensor[begin:end] for name, tensor in outputs.items()}
                member.answer.set_result(self._reply(own, seconds))
            elif member.late is not None:
                member.late(seconds)
            begin = end


def _settle(member: Member, answer: BackendError) -> None:
    if not member.answer.done():
        member.answer.set_result(answer)


def _give_up(member: Member) -> None:
    _settle(member, BackendTimeout("The server did not answer in time."))
