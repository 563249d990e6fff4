"""A simulated server behind an admission: c workers, a queue of its own, arrivals that do not wait for answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from router.admission import Admission, Waiter
from router.errors import Overloaded


@dataclass
class Server:
    """`workers` calls are worked on at a time; the others queue inside, where nobody sees them."""

    workers: int
    service_s: Callable[[], float]
    busy_until: list[float] = field(default_factory=list)

    def ends_at(self, now: float) -> float:
        """When a call that comes now will have been answered."""
        if len(self.busy_until) < self.workers:
            self.busy_until.append(now)
        soonest = min(range(len(self.busy_until)), key=self.busy_until.__getitem__)
        self.busy_until[soonest] = max(now, self.busy_until[soonest]) + self.service_s()
        return self.busy_until[soonest]


@dataclass
class Traffic:
    """An open load through an admission, and what became of it.

    Args:
        admission: The door.
        server: What is behind it.
        per_second: Mean rate of Poisson arrivals.
        deadline_s: Seconds from arrival to deadline.
        random: Where chance comes from.
    """

    admission: Admission
    server: Server
    per_second: float
    deadline_s: float
    random: Random
    priority: Callable[[], int] = lambda: 1
    offered: int = 0
    refused: int = 0
    answered: list[tuple[float, float]] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    limits: list[tuple[float, int]] = field(default_factory=list)
    expected_s: float = 0.0
    refreshed: float = 0.0
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    async def run(self, seconds: float) -> None:
        """Offers load for so many seconds, and waits for what is on its way."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        due = loop.time()
        async with asyncio.TaskGroup() as calls:
            while (due := due + self.random.expovariate(self.per_second)) < end:
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                self.offered += 1
                self.limits.append((due, self.admission.limit.value))
                try:
                    waiter = self.admission.enter(self.priority(), due + self.deadline_s, due, self.expected_s)
                except Overloaded:
                    self.refused += 1
                else:
                    calls.create_task(self._call(due, waiter))

    async def _call(self, arrived: float, waiter: Waiter | None) -> None:
        clock = asyncio.get_running_loop().time
        if waiter is not None:
            try:
                async with asyncio.timeout_at(arrived + self.deadline_s):
                    await waiter.admitted
            except (Overloaded, TimeoutError):
                self.admission.abandon(waiter, clock())
                self.refused += 1
                return
        started, in_flight = clock(), self.admission.in_flight
        await asyncio.sleep(self.server.ends_at(started) - started)
        now = clock()
        in_time = now <= arrived + self.deadline_s
        self.admission.limit.sampled(now, now - started, in_flight)
        self.admission.leave(now)
        self.latest.append(now - started)
        if now >= self.refreshed + 0.25:
            self.refreshed, self.expected_s = now, sorted(self.latest)[len(self.latest) * 99 // 100]
        if in_time:
            self.answered.append((now, now - arrived))
        else:
            self.late.append(now)
