"""How a benchmark gets on, while it does: one line that is rewritten on a terminal, a line for each cell elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TextIO

from drills.record import Sample
from planning.bench.plan import Cell, Plan

SET_UP_S = 3.0
"""What starting a gateway and waiting for the last answers takes, until it is known."""


class Progress:
    """Tells a person what is going on and how long it will take.

    Args:
        out: Where to.
        clock: Monotonic seconds.
        plan: What is measured.
        left: What is still to be measured, in order.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float], plan: Plan, left: Sequence[Cell]) -> None:
        self._out = out
        self._clock = clock
        self._plan = plan
        self._left = left
        self._number = 0
        self._began = clock()
        self._overhead = SET_UP_S
        self._requests = self._failed = 0
        self._rewrites = out.isatty()

    def cell(self) -> None:
        """The next measurement begins."""
        self._number += 1
        self._began = self._clock()
        self._requests = self._failed = 0
        self._tell(ends_line=not self._rewrites)

    def saw(self, samples: Sequence[Sample]) -> None:
        """These requests have ended."""
        self._requests += len(samples)
        self._failed += sum(not sample.answered for sample in samples)
        if self._rewrites:
            self._tell(ends_line=False)

    def done(self) -> None:
        """The measurement is in."""
        cell = self._left[self._number - 1]
        took = self._clock() - self._began - self._plan.warm_up_s - cell.scenario.seconds
        self._overhead += (max(0.0, took) - self._overhead) / 2

    def say(self, sentence: str) -> None:
        """A line that stays."""
        self._out.write(f"\r\x1b[K{sentence}\n" if self._rewrites else f"{sentence}\n")
        self._out.flush()

    @property
    def left_s(self) -> float:
        """Seconds until everything is measured."""
        rest = self._left[max(0, self._number - 1) :]
        whole = sum(self._plan.warm_up_s + cell.scenario.seconds + self._overhead for cell in rest)
        return max(0.0, whole - (self._clock() - self._began if self._number else 0.0))

    def _tell(self, *, ends_line: bool) -> None:
        parts = [f"{self._number} of {len(self._left)}", self._left[self._number - 1].key]
        if self._requests:
            parts.append(f"{self._requests:,} requests, {self._failed:,} failed")
        line = " | ".join([*parts, f"{duration(self.left_s)} left"])
        self._out.write(("\r\x1b[K" if self._rewrites else "") + line + ("\n" if ends_line else ""))
        self._out.flush()


def duration(seconds: float) -> str:
    """As people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def duration_of(plan: Plan, left: Sequence[Cell]) -> float:
    """Seconds that these measurements take, roughly."""
    return sum(plan.warm_up_s + cell.scenario.seconds + SET_UP_S for cell in left)
