"""`hybrid-router models`, with the sample models: what it says, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from app.cli import main
from app.model_profile import operator_times
from backends.golden import read_golden
from tests.gateway_process import policy_text
from tests.integration.scenario import MODELS

EDGE, CLOUD = MODELS / "digits-edge.onnx", MODELS / "digits-cloud.onnx"
CALIBRATION, HOLDOUT = MODELS / "digits-calibration.npz", MODELS / "digits-holdout.npz"


def run(*words: object, fails: bool = False) -> Result:
    result = CliRunner().invoke(main, ["models", *map(str, words)])
    assert bool(result.exit_code) == fails, result.output
    assert not result.exception or isinstance(result.exception, SystemExit), result.output
    return result


def test_check_says_what_a_file_is_and_that_it_can_be_served() -> None:
    assert "golden     answered" in run("check", EDGE).output
    document = json.loads(run("check", EDGE, "--json").output)
    assert document["opsets"] == {"ai.onnx": 17}
    assert document["operators"]["Gemm"] == 2


def test_check_fails_with_a_sentence(tmp_path: Path) -> None:
    assert "does not exist" in run("check", tmp_path / "none.onnx", fails=True).output
    (tmp_path / "cut.onnx").write_bytes(CLOUD.read_bytes()[:-1000])
    assert "cut short" in run("check", tmp_path / "cut.onnx", fails=True).output
    (tmp_path / "edge.onnx").write_bytes(EDGE.read_bytes())
    (tmp_path / "edge.golden.npz").write_bytes(b"nothing")
    assert "is not trusted" in run("check", tmp_path / "edge.onnx", fails=True).output


def test_golden_inputs_are_right_answers_of_every_label_and_the_same_each_time(tmp_path: Path) -> None:
    golden = tmp_path / "edge.golden.npz"
    run("golden", EDGE, "--data", CALIBRATION, "--out", golden)
    found = read_golden(golden)
    assert sorted(found.outputs["label"].tolist()) == sorted([*range(10)] * 2)
    assert golden.read_bytes() == (MODELS / "digits-edge.golden.npz").read_bytes()


def test_golden_inputs_without_labels_are_what_the_model_gives(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=np.zeros((3, 8, 8), np.float32))
    golden = tmp_path / "embed.golden.npz"
    run("golden", MODELS / "embed-edge.onnx", "--data", tmp_path / "data.npz", "--out", golden)
    assert read_golden(golden).outputs["embedding"].shape == (3, 16)
    refusal = run("golden", EDGE, "--data", tmp_path / "data.npz", "--out", golden, fails=True)
    assert "the model also takes pixels" in refusal.output


def test_profile_measures_what_runs_here_and_names_what_does_not_answer(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text("grpc://127.0.0.1:9"))
    words = ("profile", "digits", "--policy", policy, "--models-dir", MODELS, "--runs", 20)
    edge, cloud = json.loads(run(*words, "--json").output)
    assert (edge["backend"], edge["runs"], edge["provider"]) == ("edge", 20, "CPUExecutionProvider")
    assert 0 < edge["p50_ms"] <= edge["p95_ms"] <= edge["p99_ms"]
    assert sum(operator["share"] for operator in edge["operators"]) == pytest.approx(1)
    assert "cannot be reached" in cloud["problem"]
    assert "has no model 'none'" in run("profile", "none", "--policy", policy, fails=True).output


def test_quantised_models_are_smaller_and_about_as_right(tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    words = ("quantize", CLOUD, "--calibration", CALIBRATION, "--evaluation", HOLDOUT, "--out", tmp_path / "int8")
    plain, *others = json.loads(run(*words, "--plot", plot, "--json").output)
    assert (plain["correct"], plain["rows"]) == (533, 540)
    for result in others:
        assert result["correct"] >= 525
        assert result["bytes"] < plain["bytes"] / 3
        assert Path(result["file"]).stat().st_size == result["bytes"]
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("form", ["dynamic", "static"])
def test_what_quantising_cannot_write_whole_stays_what_it_was(form: str, tmp_path: Path) -> None:
    """The disk is full: an installed model is not torn, and the sentence names it."""
    file = tmp_path / f"digits-cloud-int8-{form}.onnx"
    file.write_bytes(b"in force")
    file.with_name(f"{file.name}.new").symlink_to("/dev/full")
    said = run("quantize", CLOUD, "--calibration", CALIBRATION, "--out", tmp_path, fails=True).output
    assert f"{file} cannot be written: No space left on device" in said
    assert file.read_bytes() == b"in force"


def test_operator_times_are_those_of_one_run() -> None:
    def event(operator: str, node: str, micros: int, what: str = "kernel_time") -> dict[str, Any]:
        args = {"op_name": operator, "provider": "CPU"}
        return {"cat": "Node", "name": f"{node}_{what}", "dur": micros, "args": args}

    events = [
        event(operator, node, micros if run else 90 * micros)  # in the first run, another process had the core
        for run in range(3)
        for operator, node, micros in (("Relu", "r", 1000), ("Gemm", "g1", 1000), ("Gemm", "g2", 2000))
    ]
    other = [event("Gemm", "g1", 9, "fence_before"), {"cat": "Session", "name": "model_run", "dur": 5}]
    gemm, relu = operator_times([*events, *other], runs=3)
    assert (gemm.operator, gemm.calls, gemm.ms, gemm.share) == ("Gemm", 2.0, 3.0, 0.75)
    assert (relu.operator, relu.calls, relu.ms) == ("Relu", 1.0, 1.0)
