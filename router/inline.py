"""Makes the first attempts of several requests on the event loop itself, where nobody has to wait for them.

A model that runs in some microseconds does not pay for a coroutine, a future and a time limit for each of its calls;
and requests that came in the same turn of the loop share its run. Whatever is out of the ordinary is left to
`Execution`: a backend that is far or not quick, a breaker that is open, a turn that has to be waited for, a budget, an
attempt that failed, or one whose answer is not final.

Invariant: what an instance learns of a call, and what is charged for it, is what it would be had `Dispatch` made it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from router.cascade import confident_rows
from router.dispatch import check_reply
from router.errors import BackendError, BackendFailed, BackendUnavailable, Outcome, Overloaded
from router.execution import Step, Tried
from router.generation import Leases
from router.instance import Instance, Permit
from router.model import ModelSpec, Tensor
from router.plan import Attempt, cut_off
from router.planner import Prepared
from router.ports import Call, RunsInline
from router.types import ON_PREMISES, AttemptRecord, EncodedImage, InferenceRequest, Reply, row_count

log = logging.getLogger(__name__)


class Begun:
    """A request that was planned.

    Args:
        request: The request.
        prepared: Its plan.
        steps: What to try: the plan's steps, or those of its other order.
        deadline: Monotonic seconds.
        leases: Counts it among the requests of its generation until it has ended.

    Attributes:
        first: How the first of the steps went, if it was made.
    """

    __slots__ = ("_leases", "deadline", "first", "prepared", "request", "steps")

    def __init__(
        self,
        request: InferenceRequest,
        prepared: Prepared,
        steps: tuple[Step, ...],
        deadline: float,
        leases: Leases,
    ) -> None:
        self.request = request
        self.prepared = prepared
        self.steps = steps
        self.deadline = deadline
        self.first: Tried | None = None
        self._leases: Leases | None = leases
        leases.count += 1

    def end(self) -> bool:
        """It has ended, however that was. Returns whether that is news."""
        leases, self._leases = self._leases, None
        if leases is None:
            return False
        leases.give_back()
        return True


def try_inline(several: Sequence[Begun], clock: Callable[[], float]) -> None:
    """Makes the first attempts of those requests for which it can be done without a wait; they have `first` then."""
    together: dict[Instance, list[Begun]] = {}
    for begun in several:
        if not begun.steps or isinstance(begun.request.payload, EncodedImage):
            continue
        target = begun.steps[0][1]
        instance = target.instance
        if instance.inline is None or target.entry.site != ON_PREMISES or target.purse is not None:
            continue
        if not instance.breaker.admits:
            continue
        peers = together.get(instance)
        if peers is None:
            together[instance] = [begun]
        else:
            peers.append(begun)
    for instance, peers in together.items():
        servable = instance.inline
        assert servable is not None
        try:
            at_once = servable.runs_inline(len(peers), max([begun.request.payload_bytes for begun in peers]))
        except Exception:
            log.exception("%s raised what its contract does not allow", instance.variant.label)
            continue
        if at_once:
            for start in range(0, len(peers), at_once):
                _Run(instance, clock).make(servable, peers[start : start + at_once])


def is_final(outputs: dict[str, Tensor], model: ModelSpec, attempt: Attempt) -> bool:
    """Whether an answer is; no if that cannot be said, which whoever goes on finds out too, and tells."""
    if attempt.accept_if is None:
        return True
    try:
        return bool(confident_rows(outputs, model, attempt.accept_if).all())
    except Exception:
        return False


class _Run:
    """One run of one model, or as many as its requests need."""

    __slots__ = ("_calls", "_clock", "_entered", "_instance", "_limits")

    def __init__(self, instance: Instance, clock: Callable[[], float]) -> None:
        self._instance = instance
        self._clock = clock
        self._entered: list[tuple[Begun, Permit, AttemptRecord, float]] = []
        self._calls: list[Call] = []
        self._limits: list[float] = []

    def make(self, servable: RunsInline, several: Sequence[Begun]) -> None:
        """Makes the attempts that there is room and time for."""
        for begun in several:
            self._enter(begun)
        if not self._calls:
            return
        replies: Sequence[Reply | BackendError]
        try:
            replies = servable.infer_inline(self._calls, self._limits)
            if len(replies) != len(self._calls):
                raise BackendFailed(f"{len(replies)} replies for {len(self._calls)} calls")
        except Exception as error:  # as in `Dispatch`: what must not happen is the backend's failure
            backend = self._entered[0][0].steps[0][0].backend
            log.exception("%s raised what its contract does not allow", backend)
            replies = [BackendFailed(f"{backend} failed: {error}")] * len(self._calls)
        for entered, call, reply in zip(self._entered, self._calls, replies, strict=True):
            self._leave(*entered, call, reply)

    def _enter(self, begun: Begun) -> None:
        now = self._clock()
        limit = cut_off(begun.steps, 0, now, begun.deadline)
        instance = self._instance
        if limit is None or limit <= now or not instance.breaker.admits or not instance.admission.enter_at_once():
            return
        request = begun.request
        attempt, target = begun.steps[0]
        record = AttemptRecord(attempt.backend, Outcome.IGNORE)
        permit = Permit(instance, record, self._clock, limit)
        permit.__enter__()
        size, rows = request.payload_bytes, row_count(request.payload, begun.prepared.model.spec)
        charged = target.charge(record, size, rows)
        self._entered.append((begun, permit, record, charged))
        self._limits.append(limit)
        self._calls.append(
            Call(
                request.payload,
                size,
                rows,
                request.id,
                request.parameters,
                None,
                request.data_class,
                request.priority,
            )
        )

    def _leave(
        self,
        begun: Begun,
        permit: Permit,
        record: AttemptRecord,
        charged: float,
        call: Call,
        reply: Reply | BackendError,
    ) -> None:
        attempt, target = begun.steps[0]
        if isinstance(reply, Reply):
            try:
                check_reply(reply, begun.prepared.model.spec, call.rows, attempt, self._clock() > begun.deadline)
            except BackendError as wrong:
                reply = wrong
        if isinstance(reply, Reply):
            record.queue_s, record.network_s, record.compute_s = reply.queue_s, reply.network_s, reply.compute_s
            permit.__exit__(None, None, None)
        else:
            if isinstance(reply, BackendUnavailable | Overloaded):
                target.refund(record, charged)
            permit.__exit__(type(reply), reply, None)
        begun.first = record, reply
