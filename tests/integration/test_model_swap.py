"""Model files are replaced under load: no request is lost, and no model that is wrong takes a right one's place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gateway_process import GatewayProcess
from tests.integration.scenario import BLANK, MODELS, Clients, edited, is_up, target
from tests.wrong_model import wrong_model

BODY = {"model": "digits", "inputs": {"pixels": BLANK}, "deadline_ms": 5000}


def edge_only(policy: str) -> str:
    """The policy file with nothing in the cloud, and the digits alone."""

    def change(content: dict[str, Any]) -> None:
        del content["models"]["embed"], content["backends"]["cloud"], content["budgets"], content["residency"]
        del content["models"]["digits"]["variants"]["cloud"]
        content["routes"] = [{"policy": "kiosk"}]

    return edited(policy, change)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of models of one's own: the edge model with its golden inputs, and others."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("digits-edge.onnx", "digits-edge.golden.npz"):
        shutil.copyfile(MODELS / name, models / name)
    return models


@pytest.fixture
def gateway(start_gateway: Callable[..., GatewayProcess], folder: Path) -> GatewayProcess:
    text = (MODELS.parents[1] / "policies/samples/default.yaml").read_text()
    gateway = start_gateway(edge_only(text), HYBRID_ROUTER_MODELS_DIR=str(folder))
    gateway.wait_until(lambda it: is_up(it, "edge"))
    return gateway


def put(source: Path, destination: Path) -> None:
    """Replaces a file, as a careful installer does."""
    fresh = destination.with_name(f".{destination.name}.new")
    shutil.copyfile(source, fresh)
    fresh.rename(destination)


def runtime(gateway: GatewayProcess) -> dict[str, Any]:
    view: dict[str, Any] = target(gateway, "digits", "edge")["runtime"]
    return view


def test_versions_take_turns_under_load_and_no_request_is_lost(gateway: GatewayProcess, folder: Path) -> None:
    first = runtime(gateway)
    assert first["provider"] == "CPUExecutionProvider"
    assert first["golden_inputs_answered"]
    with Clients(gateway, BODY) as clients:
        for turn in range(1, 5):
            put(MODELS / ("digits-cloud.onnx" if turn % 2 else "digits-edge.onnx"), folder / "digits-edge.onnx")
            gateway.wait_until(lambda it, turn=turn: runtime(it)["swaps"] == turn)
            clients.wait_for(lambda answers: len(answers) >= 20, "answers come")
    assert clients.failures() == []
    assert runtime(gateway) == first | {"swaps": 4}
    assert gateway.metric("hybrid_router_model_swaps_total", result="took over") == 4
    assert gateway.metric("hybrid_router_model_provider", provider="CPUExecutionProvider") == 1


def test_a_wrong_version_is_refused_and_a_right_one_ends_that(
    gateway: GatewayProcess, folder: Path, tmp_path: Path
) -> None:
    wrong_model(tmp_path / "wrong.onnx")
    before = gateway.infer(**BODY)["outputs"]
    with Clients(gateway, BODY, count=4) as clients:
        put(tmp_path / "wrong.onnx", folder / "digits-edge.onnx")
        gateway.wait_until(lambda it: runtime(it)["problem"])
        assert "golden inputs" in runtime(gateway)["problem"]
        assert "still is" in runtime(gateway)["problem"]
        assert gateway.metric("hybrid_router_model_file_in_force", model="digits") == 0
        assert gateway.infer(**BODY)["outputs"] == before
        (folder / "digits-edge.onnx").write_bytes(b"no model at all")
        gateway.wait_until(lambda it: runtime(it)["swaps_refused"] == 2)
        assert "no ONNX model" in runtime(gateway)["problem"]
        put(MODELS / "digits-edge.onnx", folder / "digits-edge.onnx")
        gateway.wait_until(lambda it: not runtime(it)["problem"])
        clients.wait_for(lambda answers: len(answers) >= 20, "answers come")
    assert clients.failures() == []
    assert gateway.infer(**BODY)["outputs"] == before
    assert gateway.metric("hybrid_router_model_file_in_force", model="digits") == 1
    assert gateway.metric("hybrid_router_model_swaps_total", result="refused") == 2


def test_a_policy_file_that_names_a_wrong_model_is_refused(gateway: GatewayProcess, folder: Path) -> None:
    wrong_model(folder / "digits-next.onnx")
    text = gateway.policy.read_text()
    named = text.replace("digits-edge.onnx", "digits-next.onnx\n        golden: digits-edge.golden.npz")
    with Clients(gateway, BODY, count=4) as clients:
        gateway.policy.write_text(named)
        gateway.wait_until(lambda it: it.http.get("/status").json()["policy_problems"])
        (problem,) = gateway.http.get("/status").json()["policy_problems"]
        assert "digits-next.onnx is not trusted: label is wrong" in problem
        assert gateway.metric("hybrid_router_policy_file_valid") == 0
        put(MODELS / "digits-cloud.onnx", folder / "digits-next.onnx")
        gateway.wait_until(lambda it: target(it, "digits", "edge")["variant"] == "digits-next.onnx")
        clients.wait_for(lambda answers: len(answers) >= 20, "answers come")
    assert clients.failures() == []
    assert gateway.http.get("/status").json()["policy_problems"] == []


def test_a_model_that_is_wrong_from_the_start_does_not_serve_until_it_is_mended(
    start_gateway: Callable[..., GatewayProcess], folder: Path
) -> None:
    right = (folder / "digits-edge.onnx").read_bytes()
    wrong_model(folder / "digits-edge.onnx")
    text = (MODELS.parents[1] / "policies/samples/default.yaml").read_text()
    gateway = start_gateway(edge_only(text), HYBRID_ROUTER_MODELS_DIR=str(folder))
    gateway.wait_until(lambda it: "not trusted" in (target(it, "digits", "edge")["problem"] or ""))
    assert gateway.http.post("/infer", json=BODY).status_code == 503
    (folder / "digits-edge.onnx").write_bytes(right)
    gateway.wait_until(lambda it: is_up(it, "edge"))
    assert np.argmax(gateway.infer(**BODY)["outputs"]["probabilities"]) == gateway.infer(**BODY)["outputs"]["label"][0]


def test_a_provider_that_was_asked_for_and_not_got_is_told(
    start_gateway: Callable[..., GatewayProcess], folder: Path
) -> None:
    text = edge_only((MODELS.parents[1] / "policies/samples/default.yaml").read_text())
    wanted = ["HailoExecutionProvider", "CPUExecutionProvider"]
    gateway = start_gateway(
        edited(text, lambda content: content["backends"]["edge"].update(providers=wanted)),
        HYBRID_ROUTER_MODELS_DIR=str(folder),
    )
    gateway.wait_until(lambda it: is_up(it, "edge"))
    assert runtime(gateway)["provider"] == "CPUExecutionProvider"
    assert runtime(gateway)["providers_missing"] == ["HailoExecutionProvider"]
    metrics = gateway.http.get("/metrics").text
    assert (
        'hybrid_router_model_provider{backend="edge",model="digits",provider="HailoExecutionProvider"} 0.0' in metrics
    )
    gateway.policy.write_text(
        edited(text, lambda content: content["backends"]["edge"].update(providers=["HailoExecutionProvider"]))
    )
    gateway.wait_until(lambda it: it.http.get("/status").json()["policy_problems"])
    assert "add CPUExecutionProvider" in json.dumps(gateway.http.get("/status").json()["policy_problems"])
