"""Our gateway and the real Triton, as the conformance kit sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.contract.every_type import gateway_of_every_type, triton_of_every_type
from tests.gateway_process import ROOT, GatewayProcess
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


def test_the_gateway_conforms(gateway: GatewayProcess) -> None:
    gateway.wait_until(is_up)
    gateway.wait_until(lambda it: is_up(it, model="embed"))
    status, outcome = conformance(gateway.url, "--grpc", gateway.grpc)
    assert ended(outcome, "fail") == {}
    assert status == 0
    assert outcome["conforms"]


def test_the_gateway_conforms_in_every_datatype() -> None:
    with gateway_of_every_type() as (url, grpc):
        status, outcome = conformance(url, "--grpc", grpc)
    assert ended(outcome, "fail") == {}
    assert status == 0
    assert ended(outcome, "not tried") == {}


def test_triton_conforms_but_for_what_is_known() -> None:
    with triton_of_every_type() as (url, grpc):
        status, outcome = conformance(url, "--grpc", grpc)
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
    status, outcome = conformance(gateway.url, "--grpc", "127.0.0.1:9", "--timeout", "2")
    assert status == 2
    assert outcome["stderr"].startswith("Error: 127.0.0.1:9 does not answer gRPC: UNAVAILABLE")


def test_an_address_that_is_none_is_one_sentence() -> None:
    for address in ("nowhere", "ftp://127.0.0.1", "http://127.0.0.1:x"):
        status, outcome = conformance(address)
        assert status == 2, outcome
        assert outcome["stderr"].startswith("Error: ")
        assert len(outcome["stderr"].splitlines()) == 1
