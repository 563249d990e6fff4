"""Who goes ahead, who waits and who is refused: held against a list that does the same the slow way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.admission import Admission, Waiter
from router.errors import BackendError, Outcome, Overloaded
from router.limit import ConcurrencyLimit
from router.types import Priority
from tests.unit.virtual_time import VirtualTimeLoop, in_virtual_time, virtual_loop

NEVER = 1e9
EXPECTED_S = 0.05


@dataclass
class Waiting:
    urgency: tuple[int, float, int]
    deadline: float
    waiter: Waiter


class AdmissionMachine(RuleBasedStateMachine):
    """The model: who waits, in a list that is sorted anew each time; who was let in; how many call."""

    @initialize(most=st.integers(0, 4), limit=st.integers(1, 4))
    def starts(self, most: int, limit: int) -> None:
        self.loop = VirtualTimeLoop()
        self.admission = Admission(ConcurrencyLimit(limit, least=1), most)
        self.most = most
        self.now = 1000.0
        self.calls = 0
        self.number = 0
        self.waiting: list[Waiting] = []
        self.admitted: list[Waiter] = []
        self.over: list[Waiter] = []

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def enter(self, priority: int, deadline: float) -> Waiter | None:
        async def entering() -> Waiter | None:
            return self.admission.enter(priority, deadline, self.now, EXPECTED_S)

        return self.loop.run_until_complete(entering())

    def refused(self, waiter: Waiter) -> bool:
        return waiter.admitted.done() and isinstance(waiter.admitted.exception(), Overloaded)

    def let_in(self) -> None:
        """What is to happen wherever there may be room now."""
        while self.waiting and self.calls < self.admission.limit.value:
            following = max(self.waiting, key=lambda entry: entry.urgency)
            self.waiting.remove(following)
            waiter = following.waiter
            if waiter.admitted.cancelled():
                self.over.append(waiter)
            elif self.now + EXPECTED_S > following.deadline:
                assert self.refused(waiter)
                self.over.append(waiter)
            else:
                assert waiter.admitted.done()
                assert waiter.admitted.exception() is None
                self.admitted.append(waiter)
                self.calls += 1

    @rule(priority=st.sampled_from(Priority), slack=st.sampled_from([0.06, 0.2, 1.0, NEVER, NEVER + 1]))
    def somebody_comes(self, priority: Priority, slack: float) -> None:
        self.number += 1
        deadline = self.now + slack
        urgency = (int(priority), -deadline, -self.number)
        room = self.calls < self.admission.limit.value
        try:
            waiter = self.enter(priority, deadline)
        except Overloaded:
            self.let_in()
            full = len(self.waiting) >= self.most and all(entry.urgency > urgency for entry in self.waiting)
            assert full or slack < NEVER
            assert not room or self.waiting
            return
        self.let_in()
        if waiter is None:
            assert not self.waiting
            self.calls += 1
            assert self.calls <= self.admission.limit.value
            return
        assert self.calls >= self.admission.limit.value
        if len(self.waiting) >= self.most:
            last = min(self.waiting, key=lambda entry: entry.urgency)
            assert last.urgency < urgency
            assert last.waiter.admitted.cancelled() or self.refused(last.waiter)
            self.waiting.remove(last)
            self.over.append(last.waiter)
        self.waiting.append(Waiting(urgency, deadline, waiter))

    @precondition(lambda self: self.calls)
    @rule()
    def a_call_ends(self) -> None:
        if len(self.admitted) == self.calls:
            self.admitted.pop()  # it was let in after waiting, and has called since
        self.calls -= 1
        self.admission.leave(self.now)
        self.let_in()
        assert not self.waiting or self.calls >= self.admission.limit.value

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_client_hangs_up(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        self.admission.abandon(entry.waiter, self.now)
        self.waiting.remove(entry)
        self.over.append(entry.waiter)
        assert entry.waiter.admitted.cancelled()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_task_is_cancelled_that_will_abandon_later(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.waiting)).waiter.admitted.cancel()

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def a_client_hung_up_when_it_was_just_let_in(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.admitted))
        self.admission.abandon(waiter, self.now)
        self.admitted.remove(waiter)
        self.over.append(waiter)
        self.calls -= 1
        self.let_in()

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def abandoning_what_is_over_does_nothing(self, data: st.DataObject) -> None:
        self.admission.abandon(data.draw(st.sampled_from(self.over)), self.now)

    @rule(seconds=st.floats(0.001, 0.3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(value=st.integers(1, 5))
    def the_limit_changes(self, value: int) -> None:
        self.admission.limit.value = value

    @invariant()
    def it_counts_what_the_model_counts(self) -> None:
        if hasattr(self, "admission"):
            assert self.admission.in_flight == self.calls
            assert self.admission.waiting == len(self.waiting) <= self.most
            assert 0 <= self.admission.retry_after(self.now) < NEVER


TestAdmission = AdmissionMachine.TestCase
TestAdmission.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def busy(calls: int = 1, most_waiting: int = 8) -> Admission:
    """An admission whose limit is in use."""
    admission = Admission(ConcurrencyLimit(calls, least=1), most_waiting)
    for _ in range(calls):
        assert admission.enter(Priority.NORMAL, NEVER, 1000.0, EXPECTED_S) is None
    return admission


def wait(admission: Admission, priority: Priority = Priority.NORMAL, deadline: float = NEVER) -> Waiter:
    waiter = admission.enter(priority, deadline, virtual_loop().now, EXPECTED_S)
    assert waiter is not None
    return waiter


def test_an_overload_is_the_next_attempts_chance_and_nobodys_fault() -> None:
    error = Overloaded("Retry later.", retry_after_s=0.5)
    assert isinstance(error, BackendError)
    assert (error.code, error.http_status, error.grpc_code) == ("overloaded", 429, "RESOURCE_EXHAUSTED")
    assert error.outcome is Outcome.IGNORE


@in_virtual_time
async def test_more_urgent_ones_go_first_then_earlier_deadlines_then_who_came_first() -> None:
    admission = busy()
    order = [
        (Priority.LOW, 2000.0),
        (Priority.NORMAL, 3000.0),
        (Priority.NORMAL, 2000.0),
        (Priority.NORMAL, 2000.0),
        (Priority.HIGH, 4000.0),
    ]
    waiters = [wait(admission, *each) for each in order]
    came = []
    for _ in waiters:
        admission.leave(virtual_loop().now)
        came.append(next(n for n, waiter in enumerate(waiters) if waiter.admitted.done() and n not in came))
    assert came == [4, 2, 3, 1, 0]


@in_virtual_time
async def test_a_full_queue_refuses_the_least_urgent() -> None:
    admission = busy(most_waiting=2)
    low, normal = wait(admission, Priority.LOW), wait(admission)
    high = wait(admission, Priority.HIGH)
    with pytest.raises(Overloaded, match="more urgent request took its place"):
        await low.admitted
    with pytest.raises(Overloaded, match="as urgent or more"):
        wait(admission)
    assert not normal.admitted.done()
    assert not high.admitted.done()


@in_virtual_time
async def test_who_cannot_be_answered_in_time_is_refused_at_once() -> None:
    admission = busy(calls=1)
    waiters = [wait(admission, Priority.HIGH) for _ in range(4)]
    now = virtual_loop().now
    for _ in range(3):
        now += 0.1
        admission.leave(now)
    assert sum(waiter.admitted.done() for waiter in waiters) == 3
    with pytest.raises(Overloaded, match="would come too late") as refused:
        admission.enter(Priority.NORMAL, now + 0.24, now, EXPECTED_S)
    assert refused.value.retry_after_s == pytest.approx(0.2)
    assert admission.enter(Priority.NORMAL, now + 0.26, now, EXPECTED_S) is not None


@in_virtual_time
async def test_a_high_priority_does_not_wait_behind_the_others() -> None:
    admission = busy()
    deadline = virtual_loop().now + 0.2
    for _ in range(3):
        wait(admission, deadline=deadline)
    with pytest.raises(Overloaded, match="would come too late"):
        wait(admission, deadline=deadline)
    wait(admission, Priority.HIGH, deadline)


@in_virtual_time
async def test_whose_time_ran_out_in_the_queue_is_not_run() -> None:
    admission = busy()
    now = virtual_loop().now
    late, later = wait(admission, deadline=now + 0.2), wait(admission, deadline=now + 2)
    admission.leave(now + 0.16)
    with pytest.raises(Overloaded, match="came too late"):
        await late.admitted
    await later.admitted
    assert admission.in_flight == 1


@in_virtual_time
async def test_the_time_to_wait_follows_how_fast_calls_end() -> None:
    admission = busy(calls=2)
    for _ in range(8):
        wait(admission)
    assert admission.retry_after(virtual_loop().now) == pytest.approx(9 * EXPECTED_S / 2)
    now = virtual_loop().now
    for _ in range(5):
        now += 1.0
        admission.leave(now)
    assert admission.retry_after(now) == pytest.approx(4.0)
    assert admission.retry_after(now + 1.5) == pytest.approx(2.5)
    assert admission.retry_after(now + 60) == pytest.approx(1.0)


async def call(admission: Admission, seconds: float, deadline_s: float = 60.0) -> None:
    """A caller as the class's documentation says that it be."""
    clock = virtual_loop().time
    deadline = clock() + deadline_s
    waiter = admission.enter(Priority.NORMAL, deadline, clock(), 0.0)
    if waiter is not None:
        try:
            async with asyncio.timeout(deadline - clock()):
                await waiter.admitted
        except BaseException:
            admission.abandon(waiter, clock())
            raise
    try:
        await asyncio.sleep(seconds)
    finally:
        admission.leave(clock())


@pytest.mark.parametrize("rounds", range(6))
def test_a_waiter_cancelled_around_its_turn_loses_no_slot(rounds: int) -> None:
    """Cancelled so many rounds of the loop before or after the slot became free, down to the same one."""

    @in_virtual_time
    async def run() -> None:
        admission = Admission(ConcurrencyLimit(1, least=1, most=1), 8)
        first = asyncio.create_task(call(admission, 1.0))
        await asyncio.sleep(0)
        second, third = (asyncio.create_task(call(admission, 1.0)) for _ in range(2))
        await asyncio.sleep(0.5)
        if rounds < 3:
            first.cancel()
        for _ in range(rounds % 3):
            await asyncio.sleep(0)
        second.cancel()
        if rounds >= 3:
            first.cancel()
        await third
        ended = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        assert (admission.in_flight, admission.waiting) == (0, 0)

    run()


@in_virtual_time
async def test_a_waiter_whose_time_runs_out_leaves_the_queue() -> None:
    admission = Admission(ConcurrencyLimit(1, least=1, most=1), 8)
    first = asyncio.create_task(call(admission, 5.0))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await call(admission, 1.0, deadline_s=2.0)
    assert (admission.in_flight, admission.waiting) == (1, 0)
    await first
    assert admission.in_flight == 0


@in_virtual_time
async def test_a_refusal_that_nobody_looks_at_is_no_unheard_error() -> None:
    unheard: list[dict[str, Any]] = []
    virtual_loop().set_exception_handler(lambda loop, context: unheard.append(context))
    admission = busy(most_waiting=1)
    waiter = wait(admission, Priority.LOW)
    wait(admission, Priority.HIGH)
    assert waiter.admitted.done()
    del waiter
    await asyncio.sleep(0)
    assert not unheard
