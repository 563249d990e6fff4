"""The imitated device: it nears what its load would come to, and is read as a real one is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.device_health import read_thermal
from drills import DEFAULT_FILE
from drills.overheat import BACK_BELOW_C, BUSY_C, IDLE_C, Board, nearer
from drills.scenarios import SCENARIOS
from drills.slo import load_drill_file
from router.device import DeviceLimits

celsius = st.floats(0, 120)


@given(celsius, celsius, st.floats(0, 100), st.floats(0, 100))
def test_a_temperature_nears_its_goal_and_never_passes_it(now: float, goal: float, first: float, then: float) -> None:
    after = nearer(now, goal, first)
    assert min(now, goal) - 1e-9 <= after <= max(now, goal) + 1e-9
    assert nearer(after, goal, then) == pytest.approx(nearer(now, goal, first + then))


def test_the_gateway_reads_what_it_shows(tmp_path: Path) -> None:
    board = Board(tmp_path / "device")
    assert read_thermal(tmp_path / "device").soc_c == IDLE_C
    board.step(10, 1.0)
    assert read_thermal(tmp_path / "device").soc_c == pytest.approx(board.celsius, abs=0.001)
    assert IDLE_C < board.celsius < BUSY_C


def test_without_being_spared_it_would_throttle() -> None:
    limits, slo = DeviceLimits(), load_drill_file(DEFAULT_FILE.read_text(), frozenset(SCENARIOS)).slo
    assert BUSY_C > limits.throttles_at_c == slo.device_peak_c
    assert IDLE_C < limits.back_below_c == BACK_BELOW_C
