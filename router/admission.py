"""Who may call a backend now, who waits, and who is refused. Time comes in as an argument; nothing here awaits.

Invariants:
- Each call that was let in is in flight until `leave`, or until `abandon` if its caller never learnt of it: once each.
- Nobody waits while there is room, and nobody is let in above the limit; a limit that shrank takes no call back.
- At most `most_waiting` wait. Whoever is more urgent goes first: higher priority, then earlier deadline, then first
  come. Whoever is less urgent is refused first.
- Nobody waits who is not expected to be answered in time, and nobody is let in after waiting too long for that.
- A waiter learns exactly once what became of it, unless it was abandoned first.
"""

from __future__ import annotations

import asyncio
from bisect import bisect, bisect_left, insort
from enum import Enum, auto

from router.errors import Overloaded
from router.limit import ConcurrencyLimit

SMOOTHING = 0.1
"""How much the latest gap between two calls' ends counts."""


Place = tuple[int, float, int]
"""Where a waiter stands: priority, deadline and number of arrival, the latter two negated: the greater, the sooner."""


class _State(Enum):
    WAITING = auto()
    ADMITTED = auto()
    OVER = auto()


class Waiter:
    """A request that waits for its turn.

    Attributes:
        admitted: Resolves when its turn has come; raises Overloaded when it is not going to.
        expected_s: How long its call is expected to take.
        deadline: By when it must have been answered.
    """

    __slots__ = ("admitted", "deadline", "expected_s", "place", "state")

    def __init__(self, place: Place, deadline: float, expected_s: float) -> None:
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deadline = deadline
        self.expected_s = expected_s
        self.place = place
        self.state = _State.WAITING


class Admission:
    """The door to one backend. A caller uses it like this, whatever way the call ends:

        waiter = admission.enter(priority, deadline, clock(), expected_s)
        if waiter is not None:
            try:
                async with asyncio.timeout(deadline - clock()):
                    await waiter.admitted
            except BaseException:
                admission.abandon(waiter, clock())
                raise
        started, in_flight = clock(), admission.in_flight
        try:
            ...  # call the backend
        finally:
            now = clock()
            admission.limit.sampled(now, now - started, in_flight)
            admission.leave(now)

    Args:
        limit: How many calls may be in flight; whoever makes the calls feeds it.
        most_waiting: How many may wait; 0 refuses whoever cannot go ahead at once.

    Attributes:
        limit: The same.
        in_flight: Calls that were let in and have not left.
    """

    __slots__ = ("_expected_s", "_gap_s", "_last_left", "_most_waiting", "_number", "_queue", "in_flight", "limit")

    def __init__(self, limit: ConcurrencyLimit, most_waiting: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._most_waiting = most_waiting
        self._queue: list[tuple[Place, Waiter]] = []  # the most urgent last
        self._number = 0
        self._gap_s: float | None = None
        self._expected_s = 0.0
        self._last_left: float | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def enter(self, priority: int, deadline: float, now: float, expected_s: float) -> Waiter | None:
        """Asks for leave to call.

        Args:
            priority: The higher, the more urgent.
            deadline: By when the call must have ended.
            now: The time, on the same clock.
            expected_s: How long the call is expected to take, once it is let in.

        Returns:
            None: Go ahead; the call counts as in flight.
            Waiter: Wait for `admitted`.

        Raises:
            Overloaded: As many wait as may, all of them as urgent or more; or its turn would come too late.
        """
        if self.in_flight < self.limit.value and not self._queue:
            self.in_flight += 1
            return None
        return self._queue_up(priority, deadline, now, expected_s)

    def enter_at_once(self) -> bool:
        """Lets a call in if nobody waits and there is room: it counts as in flight then. Returns whether."""
        if self.in_flight < self.limit.value and not self._queue:
            self.in_flight += 1
            return True
        return False

    def leave(self, now: float) -> None:
        """A call ended. Whoever is next may go ahead."""
        self.in_flight -= 1
        if not self._queue:
            self._last_left = self._gap_s = None  # what was learnt in a rush would keep everybody out for ever
            return
        if self._last_left is not None:
            gap = now - self._last_left
            self._gap_s = gap if self._gap_s is None else self._gap_s + SMOOTHING * (gap - self._gap_s)
        self._last_left = now
        self._let_in(now)

    def abandon(self, waiter: Waiter, now: float) -> None:
        """A waiter's client hung up, or its time ran out. Does nothing if it was refused already."""
        if waiter.state is _State.WAITING:
            del self._queue[bisect_left(self._queue, waiter.place, key=_place)]
            waiter.state = _State.OVER
            waiter.admitted.cancel()
        elif waiter.state is _State.ADMITTED:
            waiter.state = _State.OVER
            self.in_flight -= 1
            self._let_in(now)

    def retry_after(self, now: float) -> float:
        """Seconds until whoever comes then is likely to find room, judged by how fast calls ended of late."""
        gap = self._gap()
        since = 0.0 if self._last_left is None else now - self._last_left
        return max(gap, self._ahead(len(self._queue)) * gap - since)

    def _queue_up(self, priority: int, deadline: float, now: float, expected_s: float) -> Waiter | None:
        self._expected_s = expected_s
        self._let_in(now)  # the limit may have grown since the last call left
        if self.in_flight < self.limit.value and not self._queue:
            self.in_flight += 1
            return None
        self._number += 1
        place = (priority, -deadline, -self._number)
        more_urgent = len(self._queue) - bisect(self._queue, place, key=_place)
        if now + self._ahead(more_urgent) * self._gap() + expected_s > deadline:
            raise self._overloaded("Its turn would come too late for its deadline", now)
        if len(self._queue) >= self._most_waiting:
            if more_urgent == len(self._queue):
                raise self._overloaded("As many requests wait as may, all of them as urgent or more", now)
            self._shed(self._queue.pop(0)[1], "A more urgent request took its place", now)
        waiter = Waiter(place, deadline, expected_s)
        insort(self._queue, (place, waiter), key=_place)
        return waiter

    def _let_in(self, now: float) -> None:
        """Lets in who is next, for as long as there is room; whoever cannot be answered in time any more is refused."""
        while self._queue and self.in_flight < self.limit.value:
            _, waiter = self._queue.pop()
            if waiter.admitted.done():  # its task was cancelled, and has not come to abandon it yet
                waiter.state = _State.OVER
            elif now + waiter.expected_s > waiter.deadline:
                self._shed(waiter, "Its turn came too late for its deadline", now)
            else:
                waiter.state = _State.ADMITTED
                self.in_flight += 1
                waiter.admitted.set_result(None)

    def _shed(self, waiter: Waiter, why: str, now: float) -> None:
        waiter.state = _State.OVER
        if not waiter.admitted.done():
            waiter.admitted.set_exception(self._overloaded(why, now))
            waiter.admitted.exception()  # seen: whoever is cancelled at this moment never looks at it

    def _ahead(self, more_urgent: int) -> int:
        """How many calls have to end before it is the turn of one with so many before it."""
        return more_urgent + 1 + max(0, self.in_flight - self.limit.value)

    def _gap(self) -> float:
        """Seconds from one call's end to the next while all of them are busy."""
        return self._expected_s / self.limit.value if self._gap_s is None else self._gap_s

    def _overloaded(self, why: str, now: float) -> Overloaded:
        seconds = self.retry_after(now)
        return Overloaded(
            f"{why}: {self.in_flight} calls are in flight and {len(self._queue)} wait. "
            f"Retry in {seconds:.3f} s, allow more time, or send less at once.",
            retry_after_s=seconds,
        )


def _place(entry: tuple[Place, Waiter]) -> Place:
    return entry[0]
