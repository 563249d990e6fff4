"""Benchmark plans: what they measure, in which order, and what they refuse."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from planning.bench.command import bench
from planning.bench.plan import Network, Plan, arrival_seed, cells, runs
from planning.bench.plan_file import PLANS, load_plan
from planning.bench.progress import Progress, duration, duration_of
from planning.bench.served import NotServable, policy_file, triton_config
from planning.price_file import default_prices
from planning.sections import UnusableFile
from router.model import ModelSpec, TensorSpec
from tests.gateway_process import ROOT

BASIC = """
version: 1
name: mine
rounds: 2
model: {make: {made_mb: 15, image_side: 32}}
subjects:
  local: {alone: edge}
  cloud: {alone: cloud}
  pi: {gateway: "http://pi:8080/"}
networks: [{rtt_ms: 0}, {rtt_ms: 100, up_mbit_per_second: 20}]
scenarios:
  single: {per_second: 5, seconds: 4}
  sustained: {per_second: 1000, seconds: 10, subjects: [cloud]}
"""
SPEC = ModelSpec(
    "benchmark",
    "1",
    {"image": TensorSpec("float32", (-1, 3, 32, 32))},
    {"probabilities": TensorSpec("float32", (-1, 10)), "label": TensorSpec("int64", (-1,))},
)


def plan_of(text: str) -> Plan:
    return load_plan(text.encode())


def test_who_crosses_no_line_is_not_measured_for_each_network() -> None:
    assert [cell.key for cell in cells(plan_of(BASIC))] == [
        "local | no line | single",
        "cloud | 0 ms | single",
        "cloud | 100 ms 20 Mbit/s | single",
        "pi | no line | single",
        "cloud | 0 ms | sustained",
        "cloud | 100 ms 20 Mbit/s | sustained",
    ]


def test_rounds_are_interleaved() -> None:
    plan = plan_of(BASIC)
    assert [number for number, _ in runs(plan)] == [0] * 6 + [1] * 6
    assert len({(number, cell.key) for number, cell in runs(plan)}) == 12


def test_all_subjects_face_the_same_arrivals() -> None:
    plan = plan_of(BASIC)
    by_scenario: dict[tuple[int, str], set[int]] = {}
    for number, cell in runs(plan):
        by_scenario.setdefault((number, cell.scenario.name), set()).add(arrival_seed(plan, cell, number))
    assert all(len(seeds) == 1 for seeds in by_scenario.values())
    assert len(set.union(*by_scenario.values())) == len(by_scenario)


@pytest.mark.parametrize("file", sorted(PLANS.glob("*.yaml")), ids=lambda file: str(file.stem))
def test_shipped_plans_can_be_read_and_served(file: Path) -> None:
    plan = load_plan(file.read_bytes(), str(file))
    for subject in plan.subjects:
        assert policy_file(plan, subject, SPEC, "grpc://127.0.0.1:1", default_prices())


def test_paths_are_the_plan_files_own() -> None:
    text = BASIC.replace("{make: {made_mb: 15, image_side: 32}}", "{file: m.onnx, payload: /tmp/in.json}")
    model = load_plan(text.encode(), folder=Path("/plans")).model
    assert (model.file, model.payload) == ("/plans/m.onnx", "/tmp/in.json")


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("per_second: 5", "per_second: -5", "scenarios.single.per_second: -5 is not sensible; it must be above 0"),
        ("rounds: 2", "rounds: 0", "rounds: 0 is not sensible; it must be a whole number from 1 to 100"),
        ("rtt_ms: 100", "rtt_ms: .inf", "rtt_ms"),
        ("rounds: 2", "node_utilisation: 0", "node_utilisation: 0 is not sensible; it must be above 0 and up to 1"),
        ("rounds: 2", "device_utilisation: 70", "device_utilisation: 70 is not sensible"),
        ("rounds: 2", "seed: -1", "seed: -1 is not sensible; it must be a whole number from 0"),
        ("made_mb: 15", "made_mb: 1500", "made_mb: 1500 is not sensible; it must be from 1 to 500 MB"),
        ("seconds: 4", "seconds: 1", "at least 10 requests"),
        ("[cloud]", "[clod]", "scenarios.sustained.subjects names clod, which is no subject"),
        ("{alone: edge}", "{alone: edge, policy: {kind: fastest}}", "exactly one of"),
        ("{alone: edge}", "{gateway: 'pi:8080'}", "must look like http://host:8080"),
        ("rounds: 2", "round: 2", "unknown key"),
        ("rtt_ms: 100, up_mbit_per_second: 20", "rtt_ms: 0", "the same conditions twice"),
        ("rounds: 2", "cloud: {url: 'http://x:8000', name: m}", "must look like grpc://host:8001"),
        ("rounds: 2", "cloud: {url: 'grpcs://x:8001', name: m}", "a relay cannot stand in a TLS connection"),
    ],
)
def test_nonsense_is_refused_by_name(wrong: str, right: str, said: str) -> None:
    with pytest.raises(UnusableFile) as refused:
        plan_of(BASIC.replace(wrong, right))
    assert said in str(refused.value)


def test_the_policy_of_a_subject_names_only_what_it_may_ask() -> None:
    plan = plan_of(BASIC)
    local, cloud, _ = plan.subjects
    edge_only = yaml.safe_load(policy_file(plan, local, SPEC, "grpc://127.0.0.1:9", default_prices()))
    cloud_only = yaml.safe_load(policy_file(plan, cloud, SPEC, "grpc://127.0.0.1:9", default_prices()))
    assert edge_only["backends"].keys() == {"edge"}
    assert cloud_only["backends"].keys() == {"cloud"}
    assert cloud_only["backends"]["cloud"]["url"] == "grpc://127.0.0.1:9"


@pytest.mark.parametrize("given", ["", "device_utilisation: 0.033\nnode_utilisation: 1\n"])
def test_device_and_node_are_priced_as_used_as_the_plan_says(given: str) -> None:
    plan, prices = plan_of(BASIC + given), default_prices()
    device_share, node_share = (0.033, 1.0) if given else (0.7, 0.7)
    local, cloud, _ = plan.subjects
    edge = yaml.safe_load(policy_file(plan, local, SPEC, "grpc://127.0.0.1:9", prices))["backends"]["edge"]
    node = yaml.safe_load(policy_file(plan, cloud, SPEC, "grpc://127.0.0.1:9", prices))["backends"]["cloud"]
    all_of_it = prices.device.inferences_per_second.likely * 30 * 86_400
    assert edge["price"]["device"]["inferences_per_month"] == pytest.approx(device_share * all_of_it)
    assert node["price"]["node"]["utilisation"] == node_share


def test_the_shipped_quick_plan_takes_as_long_as_it_is_said_to() -> None:
    plan = load_plan((PLANS / "quick.yaml").read_bytes())
    assert 75 < duration_of(plan, [cell for _, cell in runs(plan)]) < 105
    help_text = CliRunner().invoke(bench, ["--help"]).output
    for text in (help_text, (PLANS / "quick.yaml").read_text(), (ROOT / "docs/benchmarks.md").read_text()):
        assert "about a minute and a half" in text.lower()


def test_a_policy_that_is_none_is_refused_before_anything_is_measured() -> None:
    plan = plan_of(BASIC.replace("{alone: edge}", "{policy: {kind: wishful}}"))
    with pytest.raises(NotServable, match=r"subjects\.local makes no policy file"):
        policy_file(plan, plan.subjects[0], SPEC, "grpc://127.0.0.1:9", default_prices())


def test_triton_is_told_of_each_tensor_without_its_batch() -> None:
    config = triton_config(SPEC)
    assert 'name: "image" data_type: TYPE_FP32 dims: [ 3, 32, 32 ]' in config
    assert 'name: "label" data_type: TYPE_INT64 dims: [ 1 ]' in config


def test_what_the_triton_here_cannot_serve_is_said() -> None:
    tokens = ModelSpec("benchmark", "1", {"tokens": TensorSpec("int64", (-1, 8))}, SPEC.outputs)
    with pytest.raises(NotServable, match="name a cloud of your own"):
        triton_config(tokens)


@given(st.floats(0, 1e6))
def test_durations_are_exact_to_their_last_unit(seconds: float) -> None:
    words = duration(seconds).split()
    unit_s = {"h": 3600, "min": 60, "s": 1}
    said = sum(int(number) * unit_s[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(said - seconds) <= (60 if "h" in words else 0.5)


def test_time_left_counts_down_and_learns_what_starting_takes() -> None:
    plan, now, out = plan_of(BASIC), 0.0, StringIO()
    left = [cell for _, cell in runs(plan)]
    progress = Progress(out, lambda: now, plan, left)
    before = progress.left_s
    progress.cell()
    now = 20.0  # 2 s of warm-up and 4 s of load; starting took 14 s
    progress.done()
    progress.cell()
    assert progress.left_s > before - (6 + 3)
    assert out.getvalue().startswith("1 of 12 | local | no line | single | ")


def test_networks_are_told_apart_in_words() -> None:
    assert str(Network(50.0)) == "50 ms"
    assert str(Network(50.0, 2.5)) == "50 ms 2.5 Mbit/s"
