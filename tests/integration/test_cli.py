"""The command line as people use it: what it prints, how it exits, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from tests.gateway_process import DEFAULT_POLICY, ROOT, GatewayProcess, policy_text
from tests.integration.scenario import SEVEN

NOBODY = "http://127.0.0.1:9"
KEY = "a key of sufficient length"


def run(*arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "app", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    return ended


def said(ended: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """What it printed, on standard output where it went well and on standard error where it did not."""
    assert ended.returncode == code, ended.stdout + ended.stderr
    good, bad = (ended.stdout, ended.stderr) if code == 0 else (ended.stderr, ended.stdout)
    assert bad == ""
    return good


COMMANDS = [
    *([], ["serve"], ["demo"], ["cloud"], ["infer"], ["status"], ["policy"], ["policy", "check"]),
    *(["advise"], ["tco"], ["bench"], ["bench", "run"], ["bench", "compare"], ["device"], ["device", "check"]),
]


@pytest.mark.parametrize("command", [*COMMANDS, ["policy", "schema"]], ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    long, short = (said(run(*command, option)) for option in ("--help", "-h"))
    assert long == short
    assert long.startswith(f"Usage: hybrid-router {' '.join(command)}".rstrip())
    assert max(map(len, long.splitlines())) <= 100


def test_help_lists_every_command() -> None:
    text = said(run("--help"))
    for command in ("serve", "demo", "cloud", "advise", "tco", "bench", "device", "infer", "status", "policy"):
        assert f"\n  {command} " in text
    assert said(run("--version")).startswith("hybrid-router, version ")


def test_an_unknown_command_is_a_usage_error() -> None:
    assert "No such command" in said(run("nonsense"), 2)


@pytest.mark.parametrize("command", [["infer", "digits", "--image", SEVEN], ["status"]], ids=["infer", "status"])
def test_without_a_gateway_it_says_how_to_start_one(command: list[str | Path]) -> None:
    sentence = said(run(*command, "--url", NOBODY), 1)
    assert sentence.startswith(f"Error: No gateway answers at {NOBODY}/")
    assert "Is `hybrid-router serve` running?" in sentence


def test_an_address_that_is_none_is_said_too() -> None:
    for url in ("nonsense", "http://", "ftp://127.0.0.1"):
        assert "No gateway answers" in said(run("status", "--url", url), 1)


def test_infer_shows_answer_and_way(steady: GatewayProcess) -> None:
    local = said(run("infer", "digits", "--image", SEVEN, "--data-class", "phi", "--url", steady.url)).splitlines()
    assert local[0] == "label: [7]"
    assert local[1].startswith("probabilities: [[")
    assert local[2].startswith("answered by edge (digits-edge.onnx) in ")
    assert local[3].startswith("policy kiosk, 0 bytes left the site, $0.0000")
    away = said(run("infer", "digits", "--image", SEVEN, "--deadline-ms", "10000", HYBRID_ROUTER_URL=steady.url))
    assert "answered by cloud (digits:1) in " in away
    assert f"policy documents, {SEVEN.stat().st_size} bytes left the site" in away


def test_infer_takes_tensors_from_file_and_stdin(steady: GatewayProcess, tmp_path: Path) -> None:
    text = json.dumps({"image": [[[0.0] * 8] * 8]})
    file = tmp_path / "inputs.json"
    file.write_text(text)
    options = ("--data-class", "phi", "--url", steady.url, "--json")
    by_stdin = json.loads(said(run("infer", "embed", "--inputs", "-", *options, stdin=text)))
    by_file = json.loads(said(run("infer", "embed", "--inputs", file, *options)))
    assert by_stdin["outputs"] == by_file["outputs"]
    assert by_stdin["route"]["backend"] == "edge"


def test_infer_says_what_is_wrong(steady: GatewayProcess, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(SEVEN.read_bytes()[:150])
    url = ("--url", steady.url)
    sentence = said(run("infer", "digits", "--image", broken, *url), 1)
    assert sentence.startswith("Unprocessable image (422): ")
    unknown = said(run("infer", "digit", "--image", SEVEN, *url), 1)
    assert unknown.startswith("Unknown model (404): There is no model 'digit'. Did you mean 'digits'?")
    assert "does not exist" in said(run("infer", "digits", "--image", tmp_path / "none.png", *url), 2)
    assert "Give either --image or --inputs." in said(run("infer", "digits", *url), 2)
    assert "--inputs is not JSON" in said(run("infer", "digits", "--inputs", "-", *url, stdin="{"), 1)
    text = tmp_path / "text.txt"
    text.write_text("no image")
    assert "(415): " in said(run("infer", "digits", "--image", text, *url), 1)


def test_status_shows_who_is_up(steady: GatewayProcess) -> None:
    lines = said(run("status", "--url", steady.url)).splitlines()
    assert lines[0].startswith(f"policy {steady.policy}, generation 1, since ")
    assert lines[1].split() == ["MODEL", "BACKEND", "SITE", "STATE", "P50", "ms", "P95", "ms", "SLO", "ms", "$/M"]
    assert [line.split()[:4] for line in lines[2:]] == [
        [model, backend, site, "closed"]
        for model in ("digits", "embed")
        for backend, site in (("edge", "on-premises"), ("cloud", "cloud"))
    ]
    both = json.loads(said(run("status", "--url", steady.url, "--json")))
    assert set(both) == {"status", "policy"}


def test_status_says_that_the_file_is_not_in_force(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(policy_text("grpc://127.0.0.1:9"), HYBRID_ROUTER_API_KEY=KEY)
    gateway.policy.write_text(gateway.policy.read_text() + "nonsense: 1\n")
    gateway.wait_until(lambda it: not it.http.get("/policy").json()["file_is_in_force"])
    assert "Not authenticated (401)" in said(run("status", "--url", gateway.url), 1)
    text = said(run("status", "--url", gateway.url, "--api-key", KEY))
    line = len(gateway.policy.read_text().splitlines())
    assert f"the file on disk is not in force: line {line}: unknown key" in text
    assert "cloud" in text
    assert ", down" in text


def test_policy_check_says_what_would_be_in_force() -> None:
    lines = said(run("policy", "check", DEFAULT_POLICY)).splitlines()
    assert lines[0] == f"{DEFAULT_POLICY} is valid."
    assert "  model digits: digits-edge.onnx on edge, digits:1 on cloud" in lines
    assert "  model *, data class phi: policy kiosk" in lines
    assert said(run("policy", "check")).startswith("policies/samples/default.yaml is valid.")


def test_policy_check_names_every_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    text = DEFAULT_POLICY.read_text().replace("watts: 5", "wats: 5").replace("policy: documents}", "policy: document}")
    file.write_text(text)
    lines = dict(enumerate(text.splitlines(), 1))
    wats = next(number for number, line in lines.items() if "wats: 5" in line)
    sentences = said(run("policy", "check", file), 1)
    assert f"{file}, line {wats}: backends.edge.price" in sentences
    assert "unknown key" in sentences
    file.write_text(text.replace("wats: 5", "watts: 5"))
    document = next(number for number, line in lines.items() if "policy: document}" in line)
    sentences = said(run("policy", "check", file), 1)
    assert f"{file}, line {document}: routes[2].policy" in sentences
    assert "did you mean 'documents'?" in sentences
    assert "cannot be read: No such file or directory" in said(run("policy", "check", tmp_path / "none.yaml"), 1)


def test_policy_check_opens_models_if_asked(tmp_path: Path) -> None:
    assert "is valid." in said(run("policy", "check", "--open", "deploy/models"))
    sentences = said(run("policy", "check", "--open", tmp_path), 1)
    for name in ("digits", "embed"):
        assert f"models.{name}: The model file {tmp_path}/{name}-edge.onnx does not exist." in sentences


def test_the_schema_accepts_the_samples_and_refuses_mistakes() -> None:
    schema = json.loads(said(run("policy", "schema")))
    jsonschema_rs.meta.validate(schema)
    validator = jsonschema_rs.Draft202012Validator(schema)
    for sample in DEFAULT_POLICY.parent.glob("*.yaml"):
        content = yaml.safe_load(sample.read_text())
        validator.validate(content)
        content["backends"]["edge"]["thread"] = 1
        assert not validator.is_valid(content)
    assert json.loads((DEFAULT_POLICY.parent / "schema.json").read_text()) == schema
