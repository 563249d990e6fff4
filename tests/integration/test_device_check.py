"""`hybrid-router device check`: what it says and how it exits without a HAT, and on HailoRT's stand-in."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result

from app import device_check, device_steps
from app.cli import main
from tests.hat import MODELS_DIR, STANDINS, installed, standin, write_samples


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, which a second process sees too; and steps that take less time."""
    monkeypatch.setattr(device_steps, "THROUGHPUT_S", 0.2)
    monkeypatch.setattr(device_steps, "LATENCY_RUNS", 20)
    monkeypatch.setenv("PYTHONPATH", f"{STANDINS}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("HAILO_STANDIN_LOCK", str(tmp_path / "lock"))
    with standin() as found:
        write_samples(found, tmp_path)
        yield found


def check(*arguments: str | Path | float) -> Result:
    return CliRunner().invoke(main, ["device", "check", *map(str, arguments)])


def results(run: Result) -> dict[str, tuple[str, str]]:
    """How each step ended, and what it said."""
    return {step["name"]: (step["result"], step["detail"]) for step in json.loads(run.stdout)["steps"]}


def golden(folder: Path, off: float = 0.0) -> Path:
    """What the digits' model answers to random pictures, with the probabilities shifted by `off`."""
    pixels = np.random.default_rng(5).random((20, 64), np.float32)
    session = ort.InferenceSession(str(MODELS_DIR / "digits-edge.onnx"), providers=["CPUExecutionProvider"])
    label, probabilities = session.run(["label", "probabilities"], {"pixels": pixels})
    file = folder / "golden.npz"
    arrays = {
        "in.digits/input_layer1": pixels,
        "out.digits/argmax1": label.reshape(-1, 1),
        "out.digits/softmax1": probabilities + off,
    }
    np.savez(file, **arrays)
    return file


def test_without_hailort_it_says_so_plainly() -> None:
    run = check()
    assert run.exit_code == 2
    assert run.stdout.splitlines()[-1].startswith("NO HAT: HailoRT's Python package (hailo_platform) is not installed.")
    assert "docs/hardware.md" in run.stdout


def test_without_a_hat_it_says_so_plainly(module: Any) -> None:
    module.CHIP.present = False
    run = check()
    assert run.exit_code == 2
    assert "NO HAT: No HAT was found. See that it is seated" in run.stdout
    assert "inference" not in run.stdout


def test_a_broken_installation_is_a_failure_and_not_the_lack_of_a_hat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAILO_STANDIN_IMPORT_FAILS", "version")
    with installed():
        run = check()
    assert run.exit_code == 1
    assert "FAIL     HailoRT" in run.stdout
    assert "_pyhailort version (5.1.1) does not match" in run.stdout


def test_a_good_hat_passes_every_step(module: Any, tmp_path: Path) -> None:
    run = check("--hef", tmp_path / "digits.hef", "--golden", golden(tmp_path), "--seconds", 0.5, "--json")
    assert run.exit_code == 0, run.stdout
    document = json.loads(run.stdout)
    assert document["verdict"] == "PASS"
    assert [step["name"] for step in document["steps"]] == list(device_check.STEPS)
    assert {step["result"] for step in document["steps"]} == {"pass"}, results(run)
    figures = {name: value for step in document["steps"] for name, value in step["figures"].items()}
    assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"]
    assert figures["per_second"] > 0
    assert figures["temperature_c"] == 48.0
    assert not module.CHIP.owned
    assert not [thread for thread in threading.enumerate() if "hailo" in thread.name]


def test_without_a_model_it_checks_what_it_can(module: Any) -> None:
    module.CHIP.power_w = None
    run = check()
    assert run.exit_code == 0
    assert "skipped  power        this board does not measure it" in run.stdout
    assert "skipped  configure    give a compiled model with --hef" in run.stdout
    assert run.stdout.splitlines()[-1] == "PASS: 0 of 12 steps failed, 8 were skipped"


def test_answers_that_are_off_fail(module: Any, tmp_path: Path) -> None:
    files = ("--hef", tmp_path / "digits.hef", "--seconds", 0, "--json", "--golden")
    run = check(*files, golden(tmp_path, off=0.2))
    assert run.exit_code == 1
    result, detail = results(run)["accuracy"]
    assert result == "fail"
    assert "5.00% is allowed" in detail
    np.savez(tmp_path / "other.npz", pixels=np.zeros(3))
    assert "lacks in.digits/input_layer1" in results(check(*files, tmp_path / "other.npz"))["accuracy"][1]


def test_a_hat_that_another_process_holds_fails_with_what_to_do(module: Any, tmp_path: Path) -> None:
    module.CHIP.owned = True
    run = check("--hef", tmp_path / "digits.hef", "--json")
    assert run.exit_code == 1
    assert "hailo-ollama" in results(run)["configure"][1]
    assert results(run)["latency"] == ("skip", "no model is on the HAT")


def test_a_chip_that_slows_itself_down_fails(module: Any, tmp_path: Path) -> None:
    module.CHIP.throttled, module.CHIP.temperature_c = True, 96.0
    run = check("--hef", tmp_path / "digits.hef", "--seconds", 0.3, "--json")
    assert run.exit_code == 1
    assert "cool it" in results(run)["temperature"][1]
    assert "needs a fan" in results(run)["hot run"][1]


def test_one_that_is_lost_on_the_way_fails_the_rest_and_says_why(module: Any, tmp_path: Path) -> None:
    module.CHIP.frame_s = 0.002
    losing = threading.Timer(0.05, lambda: setattr(module.CHIP, "present", False))
    losing.start()
    run = check("--hef", tmp_path / "digits.hef", "--seconds", 0.2, "--json")
    losing.join()
    assert run.exit_code == 1
    said = results(run)
    assert said["hot run"][0] == "fail"
    assert "HAT" in said["throughput"][1]
