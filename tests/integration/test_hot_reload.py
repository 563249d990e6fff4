"""The policy file is edited under load: no request notices, and no mistake in it takes a good one's place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.cloud import TritonProcess
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import BLANK, MODELS, Clients, edited, is_up, target

BODY = {"model": "digits", "inputs": {"pixels": BLANK}, "deadline_ms": 5000}
EDITS = 30
PRICE = "node_usd_per_hour: 2.0"


@pytest.fixture
def up(gateway: GatewayProcess) -> GatewayProcess:
    gateway.wait_until(is_up)
    return gateway


def replace_file(path: Path, text: str) -> None:
    """As editors save: a new file takes the old one's name."""
    fresh = path.with_name(f".{path.name}.swp")
    fresh.write_text(text)
    fresh.rename(path)


def priced(text: str, dollars: float) -> str:
    assert PRICE in text
    return text.replace(PRICE, f"node_usd_per_hour: {dollars}")


def state(gateway: GatewayProcess) -> dict[str, Any]:
    policy: dict[str, Any] = gateway.http.get("/policy").json()
    return policy


def wait_for_generation(gateway: GatewayProcess, number: int) -> None:
    gateway.wait_until(lambda it: state(it)["generation"] >= number)
    assert state(gateway)["generation"] == number


def assert_bad_file(gateway: GatewayProcess, line: int, words: str) -> None:
    """The file on disk is not in force, and /policy and the metric say so; what was in force still is."""
    before = state(gateway)["in_force"]
    gateway.wait_until(lambda it: not state(it)["file_is_in_force"])
    now = state(gateway)
    assert words in " ".join(problem["message"] for problem in now["problems"])
    assert line in [problem["line"] for problem in now["problems"]]
    assert now["in_force"] == before
    assert gateway.metric("hybrid_router_policy_file_valid") == 0
    assert gateway.infer(**BODY)["route"]["backend"] == "cloud"


def assert_mended(gateway: GatewayProcess) -> None:
    gateway.wait_until(lambda it: state(it)["file_is_in_force"])
    assert state(gateway)["problems"] == []
    assert gateway.metric("hybrid_router_policy_file_valid") == 1


def test_thirty_edits_by_replacement_lose_no_request(up: GatewayProcess) -> None:
    text = up.policy.read_text()
    first = state(up)["generation"]
    with Clients(up, BODY) as clients:
        for edit in range(1, EDITS + 1):
            replace_file(up.policy, priced(text, edit))
            wait_for_generation(up, first + edit)
        clients.wait_for(lambda answers: len(answers) >= 50, "answers come")
    assert clients.failures() == []
    assert {(answer.backend, answer.degraded) for answer in clients.answers} == {("cloud", False)}
    assert state(up)["in_force"]["text"] == up.policy.read_text()
    assert up.metric("hybrid_router_policy_generation") == first + EDITS


def test_writing_into_the_file_is_noticed(up: GatewayProcess) -> None:
    first = state(up)["generation"]
    with Clients(up, BODY) as clients:
        for edit in (1, 2, 3):
            with up.policy.open("a") as file:  # in one write, as `echo >>` does
                file.write(f"# {edit}\n")
            wait_for_generation(up, first + edit)
    assert clients.failures() == []


def test_a_new_connection_to_the_cloud_loses_no_request(up: GatewayProcess) -> None:
    """The backend's options change, so that it is closed while requests are under way on it."""
    text = up.policy.read_text()
    first = state(up)["generation"]
    with Clients(up, BODY) as clients:
        for edit in range(1, 7):
            host = "localhost" if edit % 2 else "127.0.0.1"
            replace_file(up.policy, text.replace("grpc://127.0.0.1:", f"grpc://{host}:"))
            wait_for_generation(up, first + edit)
            clients.wait_for(lambda answers: len(answers) >= 20, "answers come")
    assert clients.failures() == []


def test_a_symlink_swap_as_kubernetes_does_it_is_noticed(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess, tmp_path: Path
) -> None:
    text = policy_text(triton.grpc_url)
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "policy.yaml").touch()
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    gateway = start_gateway(text)  # which writes it through both links
    assert (tmp_path / "..1" / "policy.yaml").read_text() == text
    gateway.wait_until(is_up)
    with Clients(gateway, BODY) as clients:
        for version in (2, 3, 4):
            (tmp_path / f"..{version}").mkdir()
            (tmp_path / f"..{version}" / "policy.yaml").write_text(priced(text, version))
            (tmp_path / "..data_tmp").symlink_to(f"..{version}")
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            shutil.rmtree(tmp_path / f"..{version - 1}")
            wait_for_generation(gateway, version)
        clients.wait_for(lambda answers: len(answers) >= 50, "answers come")
    assert clients.failures() == []
    assert gateway.policy.is_symlink()


def test_a_bad_file_changes_nothing_and_is_explained(up: GatewayProcess) -> None:
    text = up.policy.read_text()
    generation = state(up)["generation"]
    line = next(number for number, line in enumerate(text.splitlines(), 1) if PRICE in line)
    with Clients(up, BODY) as clients:
        replace_file(up.policy, text.replace(PRICE, "node_usd_per_hour: plenty"))
        assert_bad_file(up, line, "number")
        replace_file(up.policy, text + "nonsense: 1\n")
        up.wait_until(lambda it: "unknown key" in str(state(it)["problems"]))
        assert_bad_file(up, len(text.splitlines()) + 1, "unknown key")
        replace_file(up.policy, text[: text.index("routes:")] + "routes: [")
        up.wait_until(lambda it: "not YAML" in str(state(it)["problems"]))
        replace_file(up.policy, "")
        up.wait_until(lambda it: "empty" in str(state(it)["problems"]))
        replace_file(up.policy, text)
        assert_mended(up)
        clients.wait_for(lambda answers: len(answers) >= 20, "answers come")
    assert clients.failures() == []
    assert state(up)["generation"] == generation, "what is in force again was in force all the time"


def test_a_deleted_file_keeps_serving(up: GatewayProcess) -> None:
    text = up.policy.read_text()
    with Clients(up, BODY, count=2) as clients:
        up.policy.unlink()
        assert_bad_file(up, 1, "cannot be read")
        replace_file(up.policy, priced(text, 9))
        assert_mended(up)
    assert clients.failures() == []
    assert target(up, "digits", "cloud")["usd_per_million"] == pytest.approx(9 / 3600 / 200 * 1e6)


def test_a_new_price_counts_at_once_and_costs_no_knowledge(up: GatewayProcess) -> None:
    for _ in range(50):
        before = up.infer(**BODY)["route"]["cost_usd"]
    up.wait_until(lambda it: target(it, "digits", "cloud")["latency"]["samples"] >= 50)
    up.wait_until(lambda it: target(it, "digits", "edge")["latency"]["samples"] >= 1)
    replace_file(up.policy, priced(up.policy.read_text(), 20.0))
    up.wait_until(lambda it: state(it)["generation"] == 2)
    seen = target(up, "digits", "cloud")
    assert seen["available"]
    assert seen["breaker"] == "closed"
    assert seen["latency"]["samples"] >= 50
    after = up.infer(**BODY)["route"]["cost_usd"]
    egress = 64 * 4 * 0.09 / 1e9
    assert after - egress == pytest.approx(10 * (before - egress))
    assert after - egress == pytest.approx(20.0 / 3600 / 200)


def test_a_model_can_be_added_and_taken_away(up: GatewayProcess) -> None:
    text = up.policy.read_text()
    body = BODY | {"model": "numerals"}
    assert up.http.post("/infer", json=body).status_code == 404

    def add(content: dict[str, Any]) -> None:
        content["models"]["numerals"] = content["models"]["digits"] | {
            "variants": {"edge": {"file": "digits-edge.onnx"}}
        }

    with Clients(up, BODY, count=2) as clients:
        replace_file(up.policy, edited(text, add))
        up.wait_until(lambda it: "numerals" in it.http.get("/models").json()["models"])
        answer = up.infer(**body)
        assert (answer["model"], answer["route"]["backend"]) == ("numerals", "edge")
        replace_file(up.policy, text)
        up.wait_until(lambda it: "numerals" not in it.http.get("/models").json()["models"])
        refusal = up.http.post("/infer", json=body)
        assert refusal.status_code == 404
        assert refusal.json()["known_models"] == ["digits", "embed"]
    assert clients.failures() == []
    assert up.metric("hybrid_router_backend_up", model="numerals") == 0


def test_a_missing_model_file_is_refused_on_reload(up: GatewayProcess) -> None:
    text = up.policy.read_text()
    replace_file(up.policy, text.replace("digits-edge.onnx", "nowhere.onnx"))
    up.wait_until(lambda it: not state(it)["file_is_in_force"])
    (problem,) = state(up)["problems"]
    assert "models.digits" in problem["message"]
    assert "nowhere.onnx does not exist" in problem["message"]
    assert up.metric("hybrid_router_policy_file_valid") == 0
    assert up.infer(**BODY, data_class="phi")["route"]["variant"] == "digits-edge.onnx"
    replace_file(up.policy, text)
    assert_mended(up)


def test_a_missing_model_file_is_tolerated_at_startup(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess
) -> None:
    gateway = start_gateway(policy_text(triton.grpc_url).replace("digits-edge.onnx", "nowhere.onnx"))
    gateway.wait_until(is_up)
    assert gateway.http.get("/readyz").json()["models"] == {"digits": ["cloud"], "embed": ["edge", "cloud"]}
    assert "nowhere.onnx does not exist" in target(gateway, "digits", "edge")["problem"]
    assert gateway.infer(**BODY)["route"]["backend"] == "cloud"
    refusal = gateway.http.post("/infer", json=BODY | {"data_class": "phi"})
    assert refusal.status_code == 503
    assert "nowhere.onnx does not exist" in refusal.json()["detail"]


def test_a_model_file_that_comes_late_is_opened(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess, tmp_path: Path
) -> None:
    """The file that the policy names is copied after the policy was refused; saving that again puts it in force."""
    models = tmp_path / "models"
    shutil.copytree(MODELS, models, ignore=lambda *_: ["__pycache__"])
    gateway = start_gateway(policy_text(triton.grpc_url), HYBRID_ROUTER_MODELS_DIR=str(models))
    late = gateway.policy.read_text().replace("digits-edge.onnx", "late.onnx")
    replace_file(gateway.policy, late)
    gateway.wait_until(lambda it: not state(it)["file_is_in_force"])
    shutil.copyfile(models / "digits-edge.onnx", models / "late.onnx")
    os.utime(gateway.policy)
    assert_mended(gateway)
    assert gateway.infer(**BODY, data_class="phi")["route"]["variant"] == "late.onnx"
