"""A scenario while it runs: the lab that it may harm, its clock, and what it has found so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drills.gateway import Gateway
from drills.lab import Lab
from drills.load import Listener, Load, LoadSpec, Stream
from drills.record import Sample, Sighting

LEAD_S = 1.0
"""A load's first request is due so long after its process is started."""

LOOK_EVERY_S = 0.02


class DrillFailed(Exception):
    """The drill itself did not work, which says nothing about the gateway; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a scenario's parts take, in seconds.

    Args:
        warm_up: Load that is not counted.
        baseline: The device alone, to compare an outage with.
        before: Load before the fault.
        during: Length of the fault.
        after: Load after the fault.
    """

    warm_up: float = 2.0
    baseline: float = 4.0
    before: float = 5.0
    during: float = 10.0
    after: float = 6.0


@dataclass(slots=True)
class Scene:
    """What a fault has at hand.

    Args:
        lab: Line and cloud.
        gateway: The gateway under drill.
        timing: How long to take.
        listener: Told how it gets on.
        zero: The run's zero on the monotonic clock.
        folder: For results.

    Attributes:
        began: When the fault began, seconds since zero.
        ended: When it ended.
        facts: Findings, by name.
        problems: What is wrong, as sentences.
        samples: What loads have brought so far; a load's come in when it has ended.
        sightings: Their looks.
    """

    lab: Lab
    gateway: Gateway
    timing: Timing
    listener: Listener
    zero: float
    folder: Path
    began: float = 0.0
    ended: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)

    def now(self) -> float:
        """Seconds since the run's zero."""
        return time.monotonic() - self.zero

    def begin(self) -> None:
        """The fault begins."""
        self.listener.phase("fault", self.timing.during)
        self.began = self.now()

    async def hold(self, share: float = 1.0) -> None:
        """Waits for a share of the time that the fault is to last."""
        await asyncio.sleep(share * self.timing.during)

    def end(self) -> None:
        """The fault is over."""
        self.ended = self.now()
        self.listener.phase("after", self.timing.after)

    def load(self, streams: Sequence[Stream], seconds: float) -> Load:
        """A load that begins in `LEAD_S` seconds."""
        spec = LoadSpec(self.gateway.url, tuple(streams), seconds, self.zero, self.now() + LEAD_S)
        results = self.folder / f"load-{self.now():.3f}.jsonl"
        prefix = ["setpriv", "--pdeathsig", "KILL", *self.lab.line.at_site([])]
        return Load(spec, results, prefix, self.listener.saw)

    def keep(self, load: Load) -> None:
        """Takes in what a load brought."""
        self.samples += load.samples
        self.sightings += load.sightings

    async def until(self, is_so: Callable[[], object], what: str, seconds: float) -> None:
        """Waits until the gateway says so, asking it without hurry.

        Raises:
            DrillFailed: It did not within `seconds`, `what` it should have.
        """
        give_up = self.now() + seconds
        while not await asyncio.to_thread(is_so):
            if self.now() > give_up:
                raise DrillFailed(f"within {seconds:g} s it was not so that {what}")
            await asyncio.sleep(LOOK_EVERY_S)
