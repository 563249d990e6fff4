"""The command's exit statuses and what it prints, with scenarios that never were."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from click.testing import CliRunner, Result

from drills.command import make_drill
from drills.conduct import Theatre
from drills.lab import Lab
from drills.line import LineFailed
from drills.load import Listener
from drills.record import Record
from drills.scenarios import Demand, Scenario
from drills.scene import DrillFailed, Timing
from tests.unit.drills.records import failure, outage, with_sample


async def _never(_: object) -> None:
    raise AssertionError("only what is run for real makes its fault happen")


SCENARIOS = {
    "wan-cut": Scenario("wan-cut", "The WAN is cut.", _never),
    "dns-loss": Scenario("dns-loss", "Names are lost.", _never, needs_root=True),
}

FILE = """
version: 1
load: {requests_per_second: 50, deadline_ms: 200}
durations: {warm_up_s: 0, baseline_s: 1, before_s: 1, during_s: 7, after_s: 1}
scenarios: {wan-cut: {during_s: 30}, dns-loss: }
slo: {failed_max: 0, late_max: 0, detection_s: 1, recovery_s: 3, p99_outage_ratio: 2, flaps_max: 2,
      phi_marked_packets_max: 0, all_down_answer_ms: 50, crash_ready_s: 2, goodput_ratio_min: 0.8}
"""


class Stage:
    """A theatre whose scenarios come out as they are told to.

    Attributes:
        asked: What was run: scenario, timing and demand.
    """

    def __init__(self, play: Callable[[str], Record], refuses: Exception | None = None) -> None:
        self.asked: list[tuple[str, Timing, Demand]] = []
        self._play = play
        self._refuses = refuses

    def theatre(self) -> Theatre:
        return Theatre(SCENARIOS, self._open, self._run)

    def _open(self, relay: bool) -> AbstractContextManager[Lab]:
        if self._refuses:
            raise self._refuses
        return nullcontext(cast(Lab, None))

    async def _run(self, scenario: Scenario, _: Lab, timing: Timing, listener: Listener, demand: Demand) -> Record:
        self.asked.append((scenario.name, timing, demand))
        listener.phase("fault", timing.during)
        record = self._play(scenario.name)
        listener.saw(record.samples)
        return record


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Result]:
    """Calls the command: `call(stage, *arguments)`; the drill file is FILE."""
    file = tmp_path / "drill.yaml"
    file.write_text(FILE)

    def run(stage: Stage, *arguments: str) -> Result:
        report = f"--report={tmp_path / 'report'}"
        return CliRunner().invoke(make_drill(stage.theatre), [f"--file={file}", report, *arguments])

    return run


def well(scenario: str) -> Record:
    return outage(scenario=scenario)


def badly(scenario: str) -> Record:
    return with_sample(well(scenario), failure(12.0))


def late_sender(scenario: str) -> Record:
    record = well(scenario)
    return replace(record, samples=tuple(replace(sample, sent=sample.due + 0.1) for sample in record.samples))


def breaks(scenario: str) -> Record:
    if scenario == "wan-cut":
        raise DrillFailed("Triton did not start")
    return well(scenario)


@pytest.mark.parametrize(
    ("play", "status", "word"),
    [(well, 0, "PASS"), (badly, 1, "FAIL"), (late_sender, 2, "NO VERDICT"), (breaks, 2, "NO VERDICT")],
)
def test_the_exit_status_says_how_it_went(
    call: Callable[..., Result], play: Callable[[str], Record], status: int, word: str, tmp_path: Path
) -> None:
    result = call(Stage(play))
    assert result.exit_code == status, result.output
    assert f"{word}; the report is {tmp_path / 'report/report.html'}" in result.stdout
    assert (tmp_path / "report/report.html").exists()


def test_one_that_breaks_does_not_keep_the_others_from_being_run(call: Callable[..., Result]) -> None:
    stage = Stage(breaks)
    assert "Triton did not start" in call(stage).output
    assert [name for name, _, _ in stage.asked] == ["wan-cut", "dns-loss"]


def test_it_does_what_the_drill_file_says(call: Callable[..., Result]) -> None:
    stage = Stage(well)
    call(stage)
    (_, cut, demand), (_, names, _) = stage.asked
    assert demand == Demand(50, 0.2)
    assert cut == Timing(0, 1, 1, 30, 1)
    assert names == Timing(0, 1, 1, 7, 1)


def test_what_is_named_on_the_command_line_is_run_for_as_long_as_it_says(call: Callable[..., Result]) -> None:
    stage = Stage(well)
    call(stage, "wan-cut", "--seconds", "3")
    assert [(name, timing.during) for name, timing, _ in stage.asked] == [("wan-cut", 3)]


def test_without_root_what_needs_it_is_not_run_and_not_passed(call: Callable[..., Result]) -> None:
    stage = Stage(well)
    result = call(stage, "--relay")
    assert [name for name, _, _ in stage.asked] == ["wan-cut"]
    assert "dns-loss: not run: it needs root" in result.output
    assert call(Stage(well), "--relay", "dns-loss").exit_code == 2


@pytest.mark.parametrize("target", ["-", "file"])
def test_json_for_machines(call: Callable[..., Result], target: str, tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    result = call(Stage(badly), "--json", "-" if target == "-" else str(path))
    document: Any = orjson.loads(result.stdout if target == "-" else path.read_bytes())
    assert document["verdict"] == "FAIL"
    assert set(document["scenarios"]) == {"wan-cut", "dns-loss"}


def test_what_cannot_be_run_says_why(call: Callable[..., Result], tmp_path: Path) -> None:
    result = call(Stage(well, refuses=LineFailed("Network namespaces need root: add --relay.")))
    assert (result.exit_code, "add --relay" in result.output) == (2, True)
    result = call(Stage(well), "wan-cat")
    assert (result.exit_code, "There is no scenario wan-cat" in result.output) == (2, True)
    (tmp_path / "drill.yaml").write_text(FILE.replace("version: 1", "version: one"))
    result = call(Stage(well))
    assert (result.exit_code, "version" in result.output) == (2, True)
    (tmp_path / "report").write_text("a file in the way")
    (tmp_path / "drill.yaml").write_text(FILE)
    assert call(Stage(well)).exit_code == 2


def test_ctrl_c_ends_it_in_order(call: Callable[..., Result]) -> None:
    def interrupted(_: str) -> Record:
        raise KeyboardInterrupt

    result = call(Stage(interrupted))
    assert (result.exit_code, "Interrupted" in result.output) == (2, True)


def test_the_scenarios_can_be_listed(call: Callable[..., Result]) -> None:
    result = call(Stage(well), "--list")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["wan-cut   The WAN is cut.", "dns-loss  Names are lost. Needs root."]
