"""The drill file: how much is asked, for how long, what is made to fail, and what must hold meanwhile.

Frozen values; a file is checked whole against them, and every mistake names its field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.types import NonNegativeFloat, NonNegativeInt, PositiveFloat

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class DrillFileError(Exception):
    """The drill file cannot be used; the message says what is wrong with it, a line for each mistake."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the main load asks.

    Args:
        requests_per_second: Its constant arrival rate.
        deadline_ms: Deadline of each request, milliseconds.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    requests_per_second: PositiveFloat
    deadline_ms: PositiveFloat


@dataclass(frozen=True, slots=True)
class Durations:
    """How long each part of a scenario takes, in seconds.

    Args:
        warm_up_s: Load that is not counted.
        baseline_s: The device alone; what an outage is compared with.
        before_s: Load before the fault.
        during_s: The fault.
        after_s: Load after it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    warm_up_s: NonNegativeFloat
    baseline_s: PositiveFloat
    before_s: PositiveFloat
    during_s: PositiveFloat
    after_s: PositiveFloat


@dataclass(frozen=True, slots=True)
class ScenarioOptions:
    """What is particular to one scenario.

    Args:
        during_s: Length of its fault, where it is not the usual one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    during_s: PositiveFloat | None = None


@dataclass(frozen=True, slots=True)
class Slo:
    """What must hold. Each figure is the worst that still passes.

    Args:
        failed_max: Requests without an answer.
        late_max: Answers after their deadline.
        detection_s: Seconds from the fault's begin until no request pays for the dead cloud any more.
        recovery_s: Seconds from the fault's end until the cloud answers again.
        p99_outage_ratio: P99 in a steady outage over the P99 of the device alone, in the same run.
        flaps_max: Changes of the cloud's state for each fault.
        phi_marked_packets_max: Packets to the cloud with data that may not leave the site.
        all_down_answer_ms: Milliseconds within which a 503 comes once it is known that nobody can answer.
        crash_ready_s: Seconds from the gateway's crash until it is ready again.
        goodput_ratio_min: Answers in time under overload, over the most that the device can give.
        device_peak_c: Temperature that a device comes to whose fan stands still, °C.
        device_turn_s: Seconds that the shortest turn of device or cloud takes then.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    failed_max: NonNegativeInt
    late_max: NonNegativeInt
    detection_s: NonNegativeFloat
    recovery_s: NonNegativeFloat
    p99_outage_ratio: PositiveFloat
    flaps_max: NonNegativeInt
    phi_marked_packets_max: NonNegativeInt
    all_down_answer_ms: PositiveFloat
    crash_ready_s: PositiveFloat
    goodput_ratio_min: NonNegativeFloat
    device_peak_c: PositiveFloat = 80.0
    device_turn_s: NonNegativeFloat = 5.0


@dataclass(frozen=True, slots=True)
class DrillFile:
    """A drill file's content.

    Args:
        version: Of the file's format.
        load: What is asked.
        durations: How long the parts take.
        scenarios: What is made to fail, in this order.
        slo: What must hold.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    version: Literal[1]
    load: Demand
    durations: Durations
    scenarios: Annotated[Mapping[str, ScenarioOptions], Field(min_length=1)]
    slo: Slo

    def during_s(self, scenario: str) -> float:
        """Length of a scenario's fault, seconds."""
        options = self.scenarios.get(scenario, ScenarioOptions())
        return self.durations.during_s if options.during_s is None else options.during_s


_drill_file = TypeAdapter(DrillFile)


def load_drill_file(text: str, known: frozenset[str]) -> DrillFile:
    """Reads a drill file.

    Args:
        text: Its content, YAML.
        known: The scenarios that there are.

    Raises:
        DrillFileError: It cannot be used.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DrillFileError(f"It is not YAML: {' '.join(str(error).split())}") from None
    if isinstance(content, dict) and isinstance(content.get("scenarios"), dict):
        # `wan-cut:` with nothing after it is the natural way to write a scenario without options.
        content["scenarios"] = {name: given or {} for name, given in content["scenarios"].items()}
    try:
        file = _drill_file.validate_python(content)
    except ValidationError as error:
        raise DrillFileError("\n".join(map(_sentence, error.errors()))) from None
    names = ", ".join(sorted(known))
    if unknown := [name for name in file.scenarios if name not in known]:
        raise DrillFileError(
            "\n".join(f"scenarios.{name}: there is no such scenario; there are {names}" for name in unknown)
        )
    return file


def _sentence(problem: Any) -> str:
    where = ".".join(map(str, problem["loc"])) or "the file"
    return f"{where}: {problem['msg']}"
