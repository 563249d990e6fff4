"""The overheat scenario: the fan stands still, and the device gets the hotter the more of the load it answers.

There is no such device here. The gateway reads its temperature from a folder, in which it follows a model of the first
order: it nears what the present load would come to, as a heat sink does. Only the temperature is made up; who answers
is the gateway's own choice, and what it chooses is what heats or cools the model.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

from drills.scene import Scene

IDLE_C = 52.0
BUSY_C = 92.0
"""Where it would come to without a fan if it answered everything; beyond where a Pi 5 slows down."""

NEARS_WITHIN_S = 20.0
"""After so long it has gone two thirds of the way. Real ones take longer, which makes it easier."""

LEAST_S = 30.0
"""It takes so long to get hot, be spared and come back."""

BACK_WITHIN_S = 60.0
STEP_S = 0.25
BACK_BELOW_C = 68.0
"""As in the policy file's `device` section."""


class Board:
    """A device whose temperature a gateway can read.

    Args:
        root: Where the gateway looks sensors up.

    Attributes:
        celsius: Its temperature.
    """

    def __init__(self, root: Path) -> None:
        self._zone = root / "sys/class/thermal/thermal_zone0"
        self._zone.mkdir(parents=True)
        self._zone.joinpath("type").write_text("cpu-thermal\n", encoding="ascii")
        self.celsius = IDLE_C
        self._show()

    def step(self, seconds: float, share: float) -> None:
        """Lets time pass in which it answers this share of all requests."""
        self.celsius = nearer(self.celsius, IDLE_C + share * (BUSY_C - IDLE_C), seconds)
        self._show()

    def _show(self) -> None:
        beside = self._zone / "temp.new"
        beside.write_text(f"{self.celsius * 1000:.0f}\n", encoding="ascii")
        beside.replace(self._zone / "temp")


def nearer(celsius: float, towards: float, seconds: float) -> float:
    """Where a temperature is after so many seconds on its way to another."""
    return towards + (celsius - towards) * math.exp(-seconds / NEARS_WITHIN_S)


async def overheat(scene: Scene) -> None:
    """The fan stands still, for half a minute at least, and then turns again; it is over when the device is back."""
    board = Board(scene.gateway.device_root)
    scene.facts["back_below_c"] = BACK_BELOW_C
    scene.begin()
    stands_until = scene.now() + max(scene.timing.during, LEAST_S)
    give_up = stands_until + BACK_WITHIN_S
    peak, was_spared, said_so = board.celsius, False, False
    counted, at = await asyncio.to_thread(scene.gateway.attempts), scene.now()
    while scene.now() < give_up:
        await asyncio.sleep(STEP_S)
        before, counted = counted, await asyncio.to_thread(scene.gateway.attempts)
        seconds, at = scene.now() - at, scene.now()
        answers = {backend: count - before.get(backend, 0.0) for backend, count in counted.items()}
        share = answers.get("edge", 0.0) / max(1.0, sum(answers.values()))
        fan_turns = at >= stands_until
        board.step(seconds, 0.0 if fan_turns else share)
        peak = max(peak, board.celsius)
        is_spared = share < 0.5
        if is_spared and not was_spared:
            scene.facts.setdefault("spared_at_c", board.celsius)
            said_so |= await asyncio.to_thread(scene.gateway.strain) == "warm"
        if was_spared and not is_spared:
            scene.facts["back_at_c"] = board.celsius
        was_spared = is_spared
        if fan_turns and not is_spared:
            break
    scene.end()
    scene.facts["peak_c"] = peak
    if not said_so:
        scene.problems.append("While the device was spared, /status did not say that it is warm.")
