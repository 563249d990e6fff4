"""Reports of drills that went well, that went badly, and that saw nothing at all."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from drills import DEFAULT_FILE
from drills.expectations import EXPECTATIONS
from drills.judgement import judge
from drills.record import Record, Sighting
from drills.report import write_report
from drills.slo import load_drill_file
from drills.summary import Drill, as_json, table
from tests.unit.drills.records import failure, outage, with_sample

SLO = load_drill_file(DEFAULT_FILE.read_text(), frozenset(EXPECTATIONS)).slo
NOTHING = Record("wan-cut", "Nothing was seen.", 0.0, 0.0, (), ())


def drill(*records: Record) -> Drill:
    verdicts = [judge(record, EXPECTATIONS[record.scenario], SLO) for record in records]
    return Drill("drill <b>&", "2026-01-01T00:00:00+00:00", {"processor": "one <fast>"}, SLO, verdicts, {}, {})


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(outage(), id="well"),
        pytest.param(NOTHING, id="nothing"),
        pytest.param(replace(NOTHING, sightings=(Sighting(0.0, None),)), id="one look, no answer"),
        pytest.param(replace(NOTHING, samples=(failure(0.0),)), id="one request, no answer"),
        pytest.param(replace(outage(), wire=None, sightings=()), id="nobody looked"),
        pytest.param(replace(outage(), fault="<script>alert(1)</script>", problems=("<img src=x>",)), id="markup"),
    ],
)
def test_it_is_one_page_that_needs_nothing_else(record: Record, tmp_path: Path) -> None:
    page = write_report(drill(record), EXPECTATIONS, tmp_path / "new" / "folder")
    text = page.read_text()
    assert (page.parent / "wan-cut.png").read_bytes().startswith(b"\x89PNG")
    assert text.rstrip().endswith("</body></html>")
    assert set(re.findall(r'(?:src|href)="(.{5})', text)) <= {"data:", "#wan-"}
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "drill &lt;b&gt;&amp;" in text


def test_the_table_has_a_line_for_each_scenario_and_says_what_is_wrong() -> None:
    text = table(drill(outage(), with_sample(outage(scenario="cloud-hang"), failure(12.0))))
    head, well, badly, why = text.splitlines()
    assert head.split()[:2] == ["SCENARIO", "VERDICT"]
    assert well.split()[:4] == ["wan-cut", "PASS", "0", "0"]
    assert badly.split()[:4] == ["cloud-hang", "FAIL", "1", "0"]
    assert why.startswith("cloud-hang: failed is 1, wanted ≤ 0: 1 of 2,501 requests got no answer: 1 with TimeoutError")
    assert len({len(head), len(well), len(badly)}) == 1


def test_scenarios_that_were_not_run_are_never_passed() -> None:
    outcome = replace(drill(outage()), not_run={"dns-loss": "it needs root"}, broken={"overload": "it broke"})
    assert outcome.word == "NO VERDICT"
    assert "dns-loss: not run: it needs root" in table(outcome)
    assert "overload: the drill itself did not work: it broke" in table(outcome)
    assert replace(outcome, verdicts=[], broken={}).word == "NO VERDICT"


def test_machines_read_the_same() -> None:
    document = orjson.loads(as_json(drill(outage(), with_sample(outage(scenario="cloud-hang"), failure(12.0)))))
    assert document["verdict"] == "FAIL"
    hang = document["scenarios"]["cloud-hang"]
    assert (hang["verdict"], hang["figures"]["failed"], hang["figures"]["failed_with"]) == (
        "FAIL",
        1,
        {"TimeoutError": 1},
    )
    assert [check["name"] for check in hang["checks"] if not check["passed"]] == ["failed"]
    assert document["scenarios"]["wan-cut"]["figures"]["latency"]["before"]["count"] == 500
    assert orjson.loads(as_json(drill(NOTHING)))["scenarios"]["wan-cut"]["figures"]["latency"]["before"] is None
