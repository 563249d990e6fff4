"""Takes the steps by which a HAT is accepted: each passes, fails or is skipped, and says why.

Invariants: a step never raises; a step whose ground a failed one should have laid is skipped, not failed; nothing is
left on the HAT at the end.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from app import device_steps
from app.device_bench import Absent, Bench, Done, Failed, Figures, Request, Skipped
from router.errors import BackendError

Result = Literal["pass", "fail", "skip", "absent"]


@dataclass(frozen=True, slots=True)
class Step:
    """How one step went.

    Args:
        name: What was checked.
        result: How it ended.
        detail: What was found, or why not.
        seconds: How long it took.
        figures: Numbers, with their unit in the name.
    """

    name: str
    result: Result
    detail: str
    seconds: float
    figures: Figures


STEPS: Mapping[str, Callable[[Bench], Awaitable[Done]]] = {
    "HailoRT": device_steps.find_hailort,
    "device": device_steps.identify,
    "firmware": device_steps.firmware,
    "temperature": device_steps.temperature,
    "power": device_steps.power,
    "configure": device_steps.configure,
    "inference": device_steps.infer_once,
    "latency": device_steps.latency,
    "throughput": device_steps.throughput,
    "accuracy": device_steps.accuracy,
    "busy": device_steps.busy,
    "hot run": device_steps.hot_run,
}

NEEDED = ("HailoRT", "device")
"""Where one of these fails, the others have nothing to go on."""


async def check(request: Request, said: Callable[[Step], None], begun: Callable[[str], None]) -> list[Step]:
    """Runs the steps in order, and stops where there is no HAT.

    Args:
        request: What to check.
        said: Told of each step when it has ended.
        begun: Told of each step's name when it begins.
    """
    bench, steps = Bench(request), []
    try:
        for name, run in STEPS.items():
            begun(name)
            step = await _taken(name, run, bench)
            steps.append(step)
            said(step)
            if step.result == "absent" or (name in NEEDED and step.result == "fail"):
                break
    finally:
        for let_go in reversed(bench.held):
            await let_go()
    return steps


async def _taken(name: str, run: Callable[[Bench], Awaitable[Done]], bench: Bench) -> Step:
    started = time.monotonic()

    def step(result: Result, detail: str, figures: Figures) -> Step:
        return Step(name, result, detail, time.monotonic() - started, figures)

    try:
        return step("pass", *await run(bench))
    except Skipped as why:
        return step("skip", str(why), {})
    except Absent as why:
        return step("absent", str(why), {})
    except Failed as why:
        return step("fail", str(why), {})
    except BackendError as error:
        return step("fail", error.detail, {})
    except ExceptionGroup as errors:
        return step("fail", "; ".join(sorted({str(error) for error in errors.exceptions})), {})
    except Exception as error:  # a vendor's library may raise anything, and the other steps are worth taking
        return step("fail", f"{type(error).__name__}: {error}", {})
