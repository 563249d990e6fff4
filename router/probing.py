"""Keeps the health of opened models known: each has a task that probes it, at the pace of all of its backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from router.instance import Instance
from router.probe_pace import ProbePace

FIRST_PROBES_S = 0.5
"""How long a new policy file waits for its new models' first probes: nobody waits for a cloud that is far or gone."""

EARLY_S = 0.001
"""So much early fire the timers of a loop that counts milliseconds; waiting for the rest would cost more turns."""


class Probing:
    """See the module.

    Args:
        clock: Gives monotonic seconds.
        random: Gives numbers in [0, 1).
        flipped: Called after a probe that changed a breaker's state.
    """

    __slots__ = ("_clock", "_flipped", "_paces", "_probes", "_random")

    def __init__(self, clock: Callable[[], float], random: Callable[[], float], flipped: Callable[[], None]) -> None:
        self._clock = clock
        self._random = random
        self._flipped = flipped
        self._probes: dict[Instance, asyncio.Task[None]] = {}
        self._paces: dict[int, ProbePace] = {}

    async def first(
        self, tasks: asyncio.TaskGroup, instances: Iterable[Instance]
    ) -> Mapping[Instance, asyncio.Task[None]]:
        """Probes these for the first time, and waits a little for it. Returns what is to `keep_on`."""
        first = {
            instance: tasks.create_task(instance.probe(self._clock, self._random), name="probe")
            for instance in instances
        }
        if first:
            await asyncio.wait(first.values(), timeout=FIRST_PROBES_S)
        return first

    def keep_on(self, tasks: asyncio.TaskGroup, first: Mapping[Instance, asyncio.Task[None]]) -> None:
        """Probes them from now on, after their first probes."""
        for instance, probing in first.items():
            self._probes[instance] = tasks.create_task(self._forever(instance, probing), name="probe")

    async def stop(self, instances: Iterable[Instance]) -> None:
        """Probes these no more; a probe that is under way has ended when this returns."""
        probes = [self._probes.pop(instance) for instance in instances]
        for probe in probes:
            probe.cancel()
        if probes:
            await asyncio.wait(probes)
        for pace in self._paces.values():
            pace.hurry(self._clock())  # those that are left had their turns among more

    async def _forever(self, instance: Instance, first: asyncio.Task[None]) -> None:
        await first
        self._flipped()
        pace = self._paces.setdefault(id(instance.backend), ProbePace())
        pace.join(instance, self._clock())
        try:
            # Its cancellation alone would not do: a group of tasks that fails at that moment forgets that it was told.
            while instance in self._probes:
                await self._until_due(instance, pace)
                before = instance.breaker.state
                await instance.probe(self._clock, self._random)
                pace.probed(instance, self._clock())
                if instance.breaker.state is not before:
                    self._flipped()
        finally:
            pace.leave(instance)
            if not pace:
                del self._paces[id(instance.backend)]

    async def _until_due(self, instance: Instance, pace: ProbePace) -> None:
        # Whatever happens while this waits may bring the probe forward, or put it off.
        loop, alarm = asyncio.get_running_loop(), instance.alarm
        while (wait := pace.due_at(instance) - self._clock()) > EARLY_S:
            alarm.clear()
            timer = loop.call_later(wait, alarm.set)
            try:
                await alarm.wait()
            finally:
                timer.cancel()
            pace.looked_at(instance, self._clock())
