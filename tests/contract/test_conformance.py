"""Our gateway and the real Triton, as the conformance kit sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cloud import CloudPorts, TritonProcess
from tests.gateway_process import ROOT, GatewayProcess
from tests.integration.identity_model import identity_policy, save_identity_model
from tests.integration.scenario import is_up

TRITON_DEVIATES = {"ready-body", "trailing-slash", "outputs-order", "binary-default", "callers-fault"}
"""docs/conformance.md says in which way."""


def conformance(*words: str) -> tuple[int, dict[str, Any]]:
    """Runs the command. Returns its exit status and its outcome."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "conformance", *words, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def ended(outcome: dict[str, Any], status: str) -> dict[str, str]:
    """The checks that ended so over REST or gRPC, each with its sentence."""
    return {
        f"{check['check']} {side}": check[side]["sentence"]
        for check in outcome["checks"]
        for side in ("rest", "grpc")
        if check[side] is not None and check[side]["status"] == status
    }


@pytest.fixture(scope="module")
def triton_of_every_type(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    """A Triton with the sample models and one that gives back every datatype."""
    repository = tmp_path_factory.mktemp("repository")
    for model in (*(ROOT / "deploy/triton/models").iterdir(), ROOT / "tests/contract/triton_models/every_type"):
        (repository / model.name).symlink_to(model)
    with TritonProcess(CloudPorts(0, 0, 0), repository=repository) as process:
        yield process


def test_the_gateway_conforms(gateway: GatewayProcess) -> None:
    gateway.wait_until(is_up)
    gateway.wait_until(lambda it: is_up(it, model="embed"))
    status, outcome = conformance(gateway.url, "--grpc", gateway.grpc, "--model", "digits")
    assert ended(outcome, "fail") == {}
    assert status == 0
    assert outcome["conforms"]


def test_the_gateway_conforms_in_every_datatype(start_gateway: Callable[..., GatewayProcess], tmp_path: Path) -> None:
    save_identity_model(tmp_path / "identity.onnx")
    gateway = start_gateway(identity_policy(tmp_path / "identity.onnx"), HYBRID_ROUTER_MODELS_DIR=str(tmp_path))
    status, outcome = conformance(gateway.url, "--grpc", gateway.grpc, "--model", "identity")
    assert ended(outcome, "fail") == {}
    assert status == 0
    assert ended(outcome, "not tried") == {}


def test_triton_conforms_but_for_what_is_known(triton_of_every_type: TritonProcess) -> None:
    triton = triton_of_every_type
    status, outcome = conformance(triton.http_url, "--grpc", triton.grpc_url.removeprefix("grpc://"))
    failed = ended(outcome, "fail")
    assert {name.split()[0] for name in failed} == TRITON_DEVIATES, failed
    assert status == 0
    assert ended(outcome, "not tried") == {}
    assert set(ended(outcome, "not offered")) == {"grpc-reflection grpc"}


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    status, outcome = conformance("http://127.0.0.1:9")
    assert status == 2
    assert outcome["stderr"].startswith("Error: http://127.0.0.1:9 does not answer: ")
    assert len(outcome["stderr"].splitlines()) == 1


def test_a_grpc_side_that_is_not_there_is_one_sentence(gateway: GatewayProcess) -> None:
    status, outcome = conformance(gateway.url, "--grpc", "127.0.0.1:9", "--timeout", "2", "--model", "digits")
    assert status == 2
    assert outcome["stderr"].startswith("Error: 127.0.0.1:9 does not answer gRPC: UNAVAILABLE")


def test_an_address_that_is_none_is_one_sentence() -> None:
    for address in ("nowhere", "ftp://127.0.0.1", "http://127.0.0.1:x"):
        status, outcome = conformance(address)
        assert status == 2, outcome
        assert outcome["stderr"].startswith("Error: ")
        assert len(outcome["stderr"].splitlines()) == 1
