"""Runs the scenarios of a drill one after another, and judges each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from drills.child import ChildFailed
from drills.expectations import EXPECTATIONS
from drills.judgement import Verdict, judge
from drills.lab import Lab
from drills.line import LineFailed
from drills.load import Listener, LoadFailed
from drills.progress import Progress
from drills.record import Record
from drills.scenarios import SCENARIOS, Demand, Scenario, run
from drills.scene import DrillFailed, Timing
from drills.slo import DrillFile

NEEDS_ROOT = "it needs root, and cannot be had on a relay"

Broken = (DrillFailed, ChildFailed, LineFailed, LoadFailed)
"""The drill itself did not work, which says nothing about the gateway."""


@dataclass(frozen=True, slots=True)
class Theatre:
    """What drills are made of.

    Args:
        scenarios: What can be made to fail, by name.
        open: Makes the place where it happens; told whether to do with a relay.
        run: Runs one scenario there.
    """

    scenarios: Mapping[str, Scenario]
    open: Callable[[bool], AbstractContextManager[Lab]]
    run: Callable[[Scenario, Lab, Timing, Listener, Demand], Awaitable[Record]]


THEATRE = Theatre(SCENARIOS, lambda relay: Lab(relay=relay), run)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of all scenarios: verdicts, what cannot be had here, and where the drill itself did not work."""

    verdicts: Sequence[Verdict]
    not_run: Mapping[str, str]
    broken: Mapping[str, str]


async def conduct(
    theatre: Theatre, lab: Lab, file: DrillFile, names: Sequence[str], relay: bool, progress: Progress
) -> Outcome:
    """Runs the named scenarios in order. One that breaks does not keep the others from being run."""
    verdicts: list[Verdict] = []
    not_run: dict[str, str] = {}
    broken: dict[str, str] = {}
    demand = Demand(file.load.requests_per_second, file.load.deadline_ms / 1000)
    for number, name in enumerate(names, 1):
        scenario = theatre.scenarios[name]
        if relay and scenario.needs_root:
            not_run[name] = NEEDS_ROOT
            continue
        progress.scenario(f"{number}/{len(names)} {name}")
        try:
            record = await theatre.run(scenario, lab, _timing(file, name), progress, demand)
        except Broken as error:
            broken[name] = str(error)
            progress.say(f"{name}: the drill itself did not work: {error}")
            continue
        verdict = judge(record, EXPECTATIONS[name], file.slo)
        verdicts.append(verdict)
        progress.say(f"{name}: {verdict.word}")
    return Outcome(verdicts, not_run, broken)


def _timing(file: DrillFile, scenario: str) -> Timing:
    durations = file.durations
    return Timing(
        warm_up=durations.warm_up_s,
        baseline=durations.baseline_s,
        before=durations.before_s,
        during=file.during_s(scenario),
        after=durations.after_s,
    )
