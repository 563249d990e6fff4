"""Drill files: the default one is usable, and every mistake in one is named."""

from __future__ import annotations

import pytest

from drills import DEFAULT_FILE
from drills.expectations import EXPECTATIONS
from drills.slo import DrillFile, DrillFileError, load_drill_file

TEXT = DEFAULT_FILE.read_text()


def load(text: str) -> DrillFile:
    return load_drill_file(text, frozenset(EXPECTATIONS))


def test_the_default_file_runs_everything_and_asks_for_all_that_was_promised() -> None:
    file = load(TEXT)
    assert set(file.scenarios) == set(EXPECTATIONS)
    assert (file.load.requests_per_second, file.load.deadline_ms) == (100, 250)
    assert (file.slo.failed_max, file.slo.late_max, file.slo.flaps_max, file.slo.phi_marked_packets_max) == (0, 0, 2, 0)
    assert (file.slo.detection_s, file.slo.recovery_s, file.slo.p99_outage_ratio) == (1.0, 3.0, 2.0)
    assert (file.slo.all_down_answer_ms, file.slo.crash_ready_s) == (50, 2.0)
    assert (file.during_s("wan-flap"), file.during_s("wan-cut")) == (60, 10)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "the file"),
        ("- a list", "the file"),
        ("a: [", "line 1"),
        (TEXT.replace("version: 1", "version: 2"), "version"),
        (TEXT.replace("late_max: 0", "late_max: -1"), "slo.late_max"),
        (TEXT.replace("late_max: 0", "later_max: 0"), "slo.later_max"),
        (TEXT.replace("deadline_ms: 250", "deadline_ms: soon"), "load.deadline_ms"),
        (TEXT.replace("requests_per_second: 100", "requests_per_second: .inf"), "load.requests_per_second"),
        (TEXT.replace("{during_s: 60}", "{during: 60}"), "scenarios.wan-flap.during"),
        (TEXT.replace("  wan-cut:", "  wan-cat:"), "scenarios.wan-cat"),
        (TEXT.replace("  wan-cut:", "  wan-cut: 3"), "scenarios.wan-cut"),
        (TEXT[: TEXT.index("scenarios:")] + "scenarios: {}\n" + TEXT[TEXT.index("slo:") :], "scenarios"),
        (TEXT[: TEXT.index("slo:")], "slo"),
    ],
)
def test_a_mistake_is_named(text: str, names: str) -> None:
    with pytest.raises(DrillFileError, match=names):
        load(text)
