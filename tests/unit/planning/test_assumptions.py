"""What nobody said follows what was said or measured, and is within its range whatever that was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from planning.assumptions import make_workload
from planning.measurements import ModelMeasurement, with_model
from planning.questions import ask_for_workload
from planning.ranges import RANGES
from planning.workload import Provenance, Workload
from tests.unit.planning.workloads import example

ASKED_FOR = {
    "p95_target_ms": 300.0,
    "size_mb": 15.0,
    "rate_per_second": 4.0,
    "payload_bytes": 50_000.0,
    "residency": "may-leave",
    "local_audit": False,
    "offline": "not-needed",
    "billing": "by-use",
    "node": "reference",
}
HEAVY = ModelMeasurement("heavy.onnx", 900.0, 2000.0, 850.0, 900.0, 1.5, 9, {}, {})
ONE_AFTER_THE_OTHER = Provenance(
    "assumed", "one after the other, each in edge_p95_ms; no more than the reference figure, 25"
)


def made(**known: float) -> Workload:
    return make_workload("any", ASKED_FOR | known, "someone")


def origins(workload: Workload) -> Mapping[str, str]:
    return {field: provenance.source for field, provenance in workload.provenance.items()}


@pytest.mark.parametrize(("edge_p95_ms", "per_second"), [(1, 25), (32, 25), (40, 25), (50, 20), (900, 1000 / 900)])
def test_a_slow_device_does_fewer_a_second(edge_p95_ms: float, per_second: float) -> None:
    workload = made(edge_p95_ms=edge_p95_ms)
    assert workload.device_per_second == workload.device_part_per_second == pytest.approx(per_second)
    assert workload.provenance["device_per_second"] == ONE_AFTER_THE_OTHER


def test_what_was_said_of_the_device_stands() -> None:
    workload = made(edge_p95_ms=900, device_per_second=1.2, device_part_p95_ms=30, device_part_per_second=7)
    assert (workload.device_per_second, workload.device_part_per_second) == (1.2, 7)
    assert made().device_per_second == 25
    assert made(edge_p95_ms=900, device_per_second=8).device_part_per_second == 8


def test_a_part_that_is_quicker_than_the_whole_is_done_more_often() -> None:
    workload = made(edge_p95_ms=6000, device_part_p95_ms=600)
    assert workload.device_per_second == pytest.approx(1 / 6)
    assert workload.device_part_per_second == pytest.approx(1 / 0.6)


@pytest.mark.parametrize(("name", "per_second"), [("kiosk", 25), ("documents", 1 / 6), ("llm-13b", 1 / 20)])
def test_the_devices_of_the_worked_cases(name: str, per_second: float) -> None:
    assert example(name).device_per_second == pytest.approx(per_second)


milliseconds = st.floats(0, 600_000, exclude_min=True)


@given(milliseconds, milliseconds, st.floats(0, 1e9, exclude_min=True) | st.none())
def test_whatever_is_said_what_is_assumed_from_it_is_sensible(whole: float, part: float, rate: float | None) -> None:
    said = {"edge_p95_ms": whole, "device_part_p95_ms": part} | ({} if rate is None else {"device_per_second": rate})
    workload = made(**said)
    for field in ("device_per_second", "device_part_per_second"):
        assert getattr(workload, field) in RANGES[field]


def test_what_nobody_said_follows_what_is_measured() -> None:
    workload = with_model(made(), HEAVY)
    assert (workload.edge_p95_ms, workload.device_per_second) == (900, 1.5)
    assert (workload.device_part_p95_ms, workload.device_part_per_second) == (900, 1.5)
    assert workload.memory_mb == 2000
    assert workload.is_measured("device_per_second")
    assert origins(workload)["device_part_p95_ms"] == "as long as the whole model"
    assert not workload.is_measured("device_part_p95_ms")
    assert not workload.is_measured("device_part_per_second")


def test_what_somebody_said_stays_whatever_is_measured() -> None:
    workload = with_model(made(device_part_p95_ms=40, device_part_per_second=25, memory_mb=50), HEAVY)
    assert (workload.device_part_p95_ms, workload.device_part_per_second) == (40, 25)
    assert with_model(made(device_part_p95_ms=90), HEAVY).device_part_per_second == pytest.approx(15)
    untold = replace(made(), provenance={})
    assert with_model(untold, HEAVY).device_part_p95_ms == untold.device_part_p95_ms


def answered(answers: Mapping[str, str], part: str = "") -> Workload:
    """What comes of a conversation: the answers by a word of their question, and Enter to all others."""
    asked: list[Workload] = []
    command = click.command()(lambda: asked.append(ask_for_workload()))
    order = ["name", "target", "size", "parameters", "edge", "throughput", "compute", "trip", "rate", "concurrent"]
    order += ["sites", "payload", "updates", "residency", "audit", "offline", "billing"]
    lines = [answers.get(word, "") for word in order] + [part] + [answers.get(f"part {n}", "") for n in range(4)]
    assert CliRunner().invoke(command, input="\n".join(lines) + "\n").exit_code == 0
    return asked[0]


def test_enter_takes_what_follows_from_the_answers_before_and_it_stays_assumed() -> None:
    workload = answered({"edge": "900"}, part="redaction")
    assert workload.edge_p95_ms == workload.device_part_p95_ms == 900
    assert workload.device_per_second == workload.device_part_per_second == 1000 / 900
    assert workload.provenance["device_per_second"] == ONE_AFTER_THE_OTHER
    assert {origins(workload)[field] for field in ("edge_p95_ms", "size_mb")} == {"answered when asked"}
    assert with_model(workload, HEAVY).device_part_per_second == 1.5


def test_an_answer_is_taken_for_given() -> None:
    workload = answered({"edge": "900", "throughput": "3", "part 0": "40", "part 1": "25"}, part="redaction")
    assert (workload.device_per_second, workload.device_part_per_second) == (3, 25)
    fields = ("device_per_second", "device_part_p95_ms", "device_part_per_second")
    assert {origins(workload)[field] for field in fields} == {"answered when asked"}
    assert (workload.forwarded_share, origins(workload)["forwarded_share"]) == (1.0, "everything is forwarded")
