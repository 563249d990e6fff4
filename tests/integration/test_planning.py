"""Planning as architects use it: both commands, what they measure, and a real gateway that serves what was drafted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cloud import TritonProcess
from tests.gateway_process import ROOT, GatewayProcess
from tests.integration.scenario import BLANK, MODELS, is_up
from tests.integration.test_cli import run, said

EXAMPLES = ROOT / "planning/examples"
BLANK_IMAGE = [[[0.0] * 8] * 8]


def drafted(name: str, folder: Path) -> str:
    """The policy file that the command writes for a worked case; the command line finds it valid."""
    file = folder / "drafted.yaml"
    text = said(run("advise", EXAMPLES / f"{name}.yaml", "--policy-out", file))
    assert text.endswith(f"The policy file is {file}.\n")
    assert "is valid." in said(run("policy", "check", file))
    return file.read_text()


def test_a_gateway_serves_the_kiosk(start_gateway: Callable[..., GatewayProcess], tmp_path: Path) -> None:
    gateway = start_gateway(drafted("kiosk", tmp_path))
    gateway.wait_until(lambda it: is_up(it, "edge"))
    for facts in ({"data_class": "shopper"}, {}):
        route = gateway.infer(model="digits", inputs={"pixels": BLANK}, **facts)["route"]
        assert (route["backend"], route["bytes_out"]) == ("edge", 0)
        assert not route["degraded"]


def test_a_gateway_lets_only_redacted_documents_leave(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess, tmp_path: Path
) -> None:
    gateway = start_gateway(drafted("documents", tmp_path).replace("grpc://127.0.0.1:8001", triton.grpc_url))
    gateway.wait_until(lambda it: is_up(it, "cloud", "embed"))
    redacted = gateway.infer(model="embed", inputs={"image": BLANK_IMAGE}, data_class="customer-redacted")
    assert redacted["route"]["backend"] == "cloud"
    for facts in ({"data_class": "customer"}, {}):
        refused = gateway.http.post("/infer", json={"model": "embed", "inputs": {"image": BLANK_IMAGE}, **facts})
        assert refused.status_code == 403, refused.text


def test_a_gateway_serves_the_cameras(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess, tmp_path: Path
) -> None:
    gateway = start_gateway(drafted("cameras", tmp_path).replace("grpc://127.0.0.1:8001", triton.grpc_url))
    gateway.wait_until(is_up)
    gateway.wait_until(lambda it: is_up(it, "edge"))
    route = gateway.infer(model="digits", inputs={"pixels": BLANK}, data_class="camera")["route"]
    assert "confidence of at least 0.95 is final here" in route["reason"]


def test_a_gateway_starts_with_a_model_that_only_the_cloud_has(
    start_gateway: Callable[..., GatewayProcess], tmp_path: Path
) -> None:
    gateway = start_gateway(drafted("llm-13b", tmp_path).replace(":8001", ":9"))
    answer = gateway.http.post("/infer", json={"model": "llm-13b", "inputs": {"text": [["Hello"]]}})
    assert answer.status_code == 503


def test_what_is_measured_is_marked_so(triton: TritonProcess) -> None:
    measure = ("--measure", f"{triton.grpc_url}/digits", "--measure", MODELS / "digits-cloud.onnx")
    ended = run("advise", EXAMPLES / "cameras.yaml", "--json", *measure)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines() == [f"Measuring {subject} ..." for subject in (measure[3], measure[1])]
    figures = {figure["field"]: figure for figure in json.loads(ended.stdout)["figures"]}
    measured = {field for field, figure in figures.items() if figure["provenance"]["origin"] == "measured"}
    assert measured == {
        *("size_mb", "memory_mb", "edge_p95_ms", "device_per_second"),
        *("round_trip_ms", "cloud_compute_p95_ms", "node_per_second"),
    }
    assert figures["size_mb"]["value"] == pytest.approx((MODELS / "digits-cloud.onnx").stat().st_size / 1e6)
    assert all(figures[field]["value"] > 0 for field in measured)
    assert "digits-cloud.onnx on this device" in figures["edge_p95_ms"]["provenance"]["source"]
    assert figures["p95_target_ms"]["provenance"]["origin"] == "assumed"


def test_what_cannot_be_measured_is_said(triton: TritonProcess, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    kiosk = EXAMPLES / "kiosk.yaml"
    for subject, sentence, code in (
        (broken, "ONNX Runtime cannot run it", 1),
        (tmp_path / "none.onnx", "does not exist", 1),
        (f"{triton.grpc_url}/nonsense", "unknown model", 1),
        ("grpc://127.0.0.1:9/digits", "digits at grpc://127.0.0.1:9: ", 1),
        ("http://127.0.0.1:8000/digits", "must look like grpc://host:8001/MODEL", 2),
        (triton.grpc_url, "names no model", 2),
    ):
        ended = run("advise", kiosk, "--measure", subject)
        assert ended.returncode == code, ended.stderr
        assert sentence in ended.stderr


def test_without_a_file_it_asks_and_a_model_file_says_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "drafted.yaml"
    ended = run("advise", "--measure", MODELS / "digits-edge.onnx", "--policy-out", file, stdin="\n" * 20)
    assert ended.returncode == 0, ended.stderr
    assert "How fast must 95 % of the answers be" in ended.stderr
    assert ended.stdout.startswith("my workload: edge, ")
    assert "model digits-edge: digits-edge.onnx on edge" in said(run("policy", "check", file))


def test_a_nonsensical_answer_is_asked_again() -> None:
    ended = run("advise", stdin="mine\n-5\n" + "\n" * 20)
    assert "p95_target_ms: -5 is not sensible; it must be above 0 and up to 600,000 ms" in ended.stderr
    assert ended.stdout.startswith("mine: ")


@pytest.mark.parametrize("measure", [(), ("--measure", "grpc://127.0.0.1:9/digits")])
def test_a_policy_file_that_no_answer_could_make_is_refused_before_the_first_question(
    measure: tuple[str, ...], tmp_path: Path
) -> None:
    ended = run("advise", *measure, "--policy-out", tmp_path / "drafted.yaml", stdin="\n" * 20)
    assert "--policy-out needs the model's tensors, which no answer tells" in said(ended, 2)
    assert "Measuring" not in ended.stderr
    assert "?" not in ended.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_where_no_policy_can_be_drafted_the_advice_comes_all_the_same(as_json: bool, tmp_path: Path) -> None:
    workload, drafted_file, report = (tmp_path / name for name in ("workload.yaml", "drafted.yaml", "decision.html"))
    text = (EXAMPLES / "llm-13b.yaml").read_text()
    for content, words, sentence in (
        (text[: text.index("serving:")], "cloud, the only choice that is left", "has no `serving` section"),
        (text.replace("may-leave", "stays"), "nothing is left", "contradicts itself"),
    ):
        workload.write_text(content)
        report.unlink(missing_ok=True)
        options = ("--policy-out", drafted_file, "--report", report, *(("--json",) if as_json else ()))
        ended = run("advise", workload, *options)
        assert ended.returncode == 1
        assert sentence in ended.stderr.splitlines()[-1]
        if as_json:
            assert json.loads(ended.stdout)["workload"] == "13 B language model"
        else:
            assert ended.stdout.startswith(f"13 B language model: {words}")
            assert f"The report is {report}." in ended.stdout
        assert sentence in report.read_text()
        assert not drafted_file.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--node-utilisation", "300%"), "node_utilisation: 3 is not sensible; it must be above 0 and up to 1"),
        (("--rate", "0"), "rate_per_second: 0 is not sensible; it must be above 0 and up to 1,000,000"),
        (("--sites", "1.5"), "sites: 1.5 is not sensible; it must be a whole number from 1"),
        (("--bytes-out", "many"), "bytes_out: 'many' is no number"),
    ],
)
def test_nonsensical_options_are_refused(options: tuple[str, str], sentence: str) -> None:
    assert sentence in said(run("tco", *options), 2)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text((ROOT / "planning/prices.yaml").read_text().replace("per_kwh: 0.12", "per_kwh: -0.12"))
    sentence = said(run("tco", "--prices", prices), 1)
    assert re.search(r"line \d+: electricity.per_kwh: -0.12 is not sensible; it must be from 0 to 10", sentence)
    assert "against: there is no node 'gpu'" in said(run("tco", "--against", "gpu"), 1)
    ended = run("advise", EXAMPLES / "kiosk.yaml", "--policy-out", tmp_path / "no/where")
    assert (ended.returncode, "No such file" in ended.stderr) == (1, True)
    assert ended.stdout.startswith("retail kiosk: edge")


def test_tco_says_both_readings_of_the_device() -> None:
    text = said(run("tco"))
    assert re.search(r"device +3.3% +2,160,000 +10.15 +4.70$", text, re.MULTILINE)
    assert re.search(r"device +100.0% +64,800,000 +10.15 +0.157$", text, re.MULTILINE)
    assert re.search(r"reference +100.0% +518,400,000 +1,440.00 +2.78$", text, re.MULTILINE)
    assert "reference: above 1.41/s the edge is cheaper" in text
    assert json.loads(said(run("tco", "--json", "--seed", "5")))["spread"]["seed"] == 5


def test_the_documented_program_runs() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/planning.md").read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "split 3"
