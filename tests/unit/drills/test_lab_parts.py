"""What a drill is made of fits together: its payloads, policy file, model, scenarios and names of leftovers."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills import streams
from drills.gateway import CLOUD_IN_POLICY, MODELS, POLICY, SLOW_MODEL
from drills.owner import is_gone, mark
from drills.scenarios import SCENARIOS, Demand
from drills.slow_model import slow_model
from policies.loader import load

ISSUE = {
    *("wan-cut", "wan-flap", "brownout", "bandwidth", "cloud-crash", "cloud-hang", "cloud-errors", "dns-loss"),
    *("gateway-crash", "policy-garbage", "disk-full", "local-model-corrupt", "all-down", "overload"),
    "overheat",
}
MARKED = {stream.name: stream for stream in (streams.PRIMARY, streams.PHI, streams.LARGE)}


def payload(name: str) -> bytes:
    """A stream's tensor as it goes over the wire: float32, little-endian."""
    (tensor,) = json.loads(MARKED[name].body)["inputs"].values()
    return np.asarray(tensor, "<f4").tobytes()


def test_all_scenarios_are_there_and_each_says_what_happens() -> None:
    assert set(SCENARIOS) == ISSUE
    assert all(scenario.sentence.endswith(".") for scenario in SCENARIOS.values())


def test_patient_data_is_in_every_scenario() -> None:
    assert all("phi" in {stream.name for stream in scenario.streams} for scenario in SCENARIOS.values())


@pytest.mark.parametrize("name", MARKED)
@given(data=st.data())
def test_no_piece_of_a_payload_that_is_worth_sending_lacks_its_marker(name: str, data: st.DataObject) -> None:
    content, marker = payload(name), streams.MARKERS[name]
    start = data.draw(st.integers(0, len(content) - 2 * len(marker)))
    assert marker in content[start : start + 2 * len(marker) - 1]


@pytest.mark.parametrize("name", MARKED)
def test_a_payload_holds_no_marker_but_its_own(name: str) -> None:
    content = payload(name)
    assert [other for other, marker in streams.MARKERS.items() if marker in content] == [name]


def test_the_policy_file_is_valid_and_has_every_model_that_is_asked_for() -> None:
    deployment = load(POLICY.read_bytes(), str(POLICY))
    every = (*MARKED.values(), streams.CLOUD_ONLY, streams.LOCAL, streams.SLOW)
    assert {json.loads(stream.body)["model"] for stream in every} == set(deployment.models)
    assert CLOUD_IN_POLICY in POLICY.read_text(encoding="utf-8")


def test_every_file_that_the_policy_file_names_exists() -> None:
    deployment = load(POLICY.read_bytes(), str(POLICY))
    files = [model.variants["edge"].label for model in deployment.models.values() if "edge" in model.variants]
    assert all((MODELS / file).exists() or file == SLOW_MODEL.name for file in files)


def test_the_slow_model_is_what_its_script_makes() -> None:
    assert slow_model() == onnx.load(SLOW_MODEL)


def test_a_demand_changes_the_main_load_and_leaves_the_streams_beside_it() -> None:
    demand = Demand(per_second=30.0, deadline_s=1.0)
    assert demand.of(streams.PRIMARY).per_second == demand.of(streams.LOCAL).per_second == 30.0
    assert demand.of(streams.PHI).per_second == streams.PHI.per_second
    assert demand.of(streams.PHI).deadline_s == 1.0


def test_what_a_living_process_marked_is_not_left_over() -> None:
    assert not is_gone(f"drill-{mark()}-site", "drill")
    assert not is_gone(f"drill-{mark()}", "drill")


def test_what_a_process_marked_is_left_over_when_it_is_gone() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "from drills.owner import mark; print(mark())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert is_gone(f"drill-{made}-site", "drill")


@pytest.mark.parametrize("name", ["drill", "drill-site", "other-1-2-site", "drill--1", "eth0"])
def test_names_of_others_are_never_left_over(name: str) -> None:
    assert not is_gone(name, "drill")
