"""How often the models on one backend are probed, however many they are. Pure: time comes in as an argument.

Invariants:
- None is probed before its breaker wants it to be, and one whose breaker is in a hurry is probed at once.
- All others together are probed in turn, `AT_A_TIME` of them each `CHECK_INTERVAL_S` at most. For so many or fewer that
  is as often as their breakers want. A processor that is woken once for all of them has less to do than once for each.
- What became of one may have become of all: when one is found to be well or unwell that was not, every other is probed
  within their number divided by `NEWS_PER_S`, or as soon after that as its breaker wants it to be. A probe that was
  under way at that moment does not count.
"""

from __future__ import annotations

import math

from router.breaker import CHECK_INTERVAL_S
from router.instance import Instance

AT_A_TIME = 5
NEWS_PER_S = 200.0


class ProbePace:
    """See the module. Every instance in it has the same backend."""

    __slots__ = ("_last_turn", "_not_before", "_overtaken", "_taken", "_well")

    def __init__(self) -> None:
        self._last_turn = -math.inf
        self._taken = 0
        self._not_before: dict[Instance, float] = {}
        self._well: dict[Instance, bool] = {}
        self._overtaken: set[Instance] = set()

    def __len__(self) -> int:
        return len(self._not_before)

    def join(self, instance: Instance, now: float) -> None:
        """Counts one that was probed for the first time."""
        self._not_before[instance] = self._turn(now)
        self._well[instance] = instance.breaker.admits

    def leave(self, instance: Instance) -> None:
        """Counts it no more."""
        del self._not_before[instance], self._well[instance]
        self._overtaken.discard(instance)

    def due_at(self, instance: Instance) -> float:
        """When its next probe is due, monotonic seconds; `instance.alarm` is set when that comes nearer."""
        return max(instance.breaker.next_probe_at, self._not_before[instance])

    def looked_at(self, instance: Instance, now: float) -> None:
        """Takes in what its breaker says between two probes: users' requests may have opened it."""
        if self._well[instance] and not instance.breaker.admits:
            self._not_before[instance] = now
            self._well[instance] = False
            self.hurry(now, but=instance)

    def probed(self, instance: Instance, now: float) -> None:
        """Takes in what its breaker says after a probe."""
        patient = instance.breaker.next_probe_at > now
        if patient and instance not in self._overtaken:
            self._not_before[instance] = self._turn(now)
        else:
            self._not_before[instance] = now
            self._overtaken.discard(instance)
        well = instance.breaker.admits and patient
        if well != self._well[instance]:
            self._well[instance] = well
            self.hurry(now, but=instance)

    def _turn(self, now: float) -> float:
        if self._last_turn < now + CHECK_INTERVAL_S / 2:  # those of one turn do not end in the same moment
            self._last_turn, self._taken = now + CHECK_INTERVAL_S, 0
        elif self._taken == AT_A_TIME:
            self._last_turn, self._taken = self._last_turn + CHECK_INTERVAL_S, 0
        self._taken += 1
        return self._last_turn

    def hurry(self, now: float, but: Instance | None = None) -> None:
        """Has each of them probed soon, but for that one. Whoever is hurried gives up the turn that it had."""
        self._last_turn = now
        for place, (instance, not_before) in enumerate(self._not_before.items()):
            hurried = now + place / NEWS_PER_S
            if instance is but:
                continue
            if self.due_at(instance) <= now:
                self._overtaken.add(instance)
            elif hurried < not_before:
                self._not_before[instance] = hurried
                instance.alarm.set()
