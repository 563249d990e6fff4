"""How a gateway ends and starts again: what clients notice, and what it remembers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cloud import TritonProcess
from tests.gateway_process import ROOT, GatewayProcess, policy_text
from tests.integration.scenario import BLANK, edited, eventually, is_up

BODY = {"model": "digits", "inputs": {"pixels": BLANK}, "deadline_ms": 1500}


def spent(gateway: GatewayProcess) -> float:
    """Dollars that the cloud has cost this month."""
    return float(gateway.http.get("/status").json()["budgets"]["cloud"]["spent_month_usd"])


@pytest.fixture
def policy(tmp_path: Path, triton: TritonProcess) -> Path:
    """A policy file before the cloud that nobody may harm."""
    file = tmp_path / "policy.yaml"
    file.write_text(policy_text(triton.grpc_url))
    return file


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """A state folder that outlives gateways."""
    return {"HYBRID_ROUTER_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket such as systemd holds one."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held


def test_sigterm_says_not_ready_first_and_lets_requests_under_way_end(
    policy: Path, state: dict[str, str], mortal_triton: TritonProcess
) -> None:
    policy.write_text(policy_text(mortal_triton.grpc_url))
    with GatewayProcess(policy, state | {"HYBRID_ROUTER_DRAIN_NOTICE_S": "1"}) as gateway:
        gateway.wait_until(is_up)
        os.kill(mortal_triton.pid, signal.SIGSTOP)
        answers: list[httpx.Response] = []
        with httpx.Client(base_url=gateway.url, timeout=20, trust_env=False) as slow:
            asking = threading.Thread(target=lambda: answers.append(slow.post("/infer", json=BODY)))
            asking.start()
            eventually(lambda: gateway.metric("hybrid_router_in_flight", backend="cloud") > 0, "it is under way")
            gateway.process.send_signal(signal.SIGTERM)
            eventually(lambda: gateway.http.get("/readyz").status_code == 503, "readiness says no", 1.0)
            assert gateway.http.get("/readyz").json()["draining"]
            assert gateway.http.get("/v2/health/ready").status_code == 503
            assert gateway.http.get("/healthz").status_code == 200
            assert gateway.infer(**BODY, data_class="phi")["route"]["backend"] == "edge", "what still comes is answered"
            asking.join(10)
        os.kill(mortal_triton.pid, signal.SIGCONT)
        (answer,) = answers
        assert answer.json()["route"]["backend"] == "edge"
        assert gateway.process.wait(10) == 0


def test_ctrl_c_does_without_the_notice(policy: Path, state: dict[str, str]) -> None:
    with GatewayProcess(policy, state | {"HYBRID_ROUTER_DRAIN_NOTICE_S": "300"}) as gateway:
        gateway.process.send_signal(signal.SIGINT)
        gateway.process.wait(10)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_spent_is_remembered_to_the_nano_dollar(
    policy: Path, state: dict[str, str], end: signal.Signals
) -> None:
    with GatewayProcess(policy, state) as gateway:
        gateway.wait_until(is_up)
        answers = [gateway.infer(**BODY)["route"] for _ in range(50)]
        before = spent(gateway)
        assert before == pytest.approx(sum(route["cost_usd"] for route in answers), abs=1e-7)
        gateway.process.send_signal(end)
        gateway.process.wait(10)
    with GatewayProcess(policy, state) as gateway:
        assert spent(gateway) == before
        assert gateway.metric("hybrid_router_budget_spent_usd", backend="cloud", period="month") == before
        assert gateway.metric("hybrid_router_budget_left_usd", backend="cloud") == pytest.approx(50 - before)


def test_a_spent_budget_keeps_requests_at_home_and_says_so_everywhere(policy: Path, state: dict[str, str]) -> None:
    def nothing_left(content: dict[str, Any]) -> None:
        content["budgets"]["cloud"] = {"usd_per_day": 0.0, "when_spent": "local-only"}

    policy.write_text(edited(policy.read_text(), nothing_left))
    with GatewayProcess(policy, state) as gateway:
        answer = gateway.infer(**BODY)["route"]
        assert (answer["backend"], answer["degraded"], answer["bytes_out"]) == ("edge", True, 0)
        assert "its budget of $0 a day is spent" in answer["reason"]
        assert gateway.metric("hybrid_router_backend_up", backend="cloud", model="digits") == 0
        assert gateway.metric("hybrid_router_budget_left_usd", backend="cloud") == 0


def test_connections_that_arrive_during_a_restart_wait_and_are_answered(
    policy: Path, state: dict[str, str], listener: socket.socket
) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with GatewayProcess(policy, state, listener) as first:
        assert first.url == url
        first.infer(**BODY)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            answers.append(http.post("/infer", json=BODY | {"data_class": "phi"}))

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    time.sleep(0.2)
    assert answers == [], "nobody is there to answer"
    with GatewayProcess(policy, state, listener):
        for thread in asking:
            thread.join(20)
        assert [answer.status_code for answer in answers] == [200] * 8


@pytest.mark.parametrize("rubbish", [b"", b"backends: [", None], ids=["empty", "broken", "gone"])
def test_a_restart_with_a_bad_policy_file_goes_on_with_the_last_good_one(
    policy: Path, state: dict[str, str], rubbish: bytes | None
) -> None:
    with GatewayProcess(policy, state) as gateway:
        before = gateway.http.get("/policy").json()["in_force"]["sha256"]
        gateway.process.kill()
        gateway.process.wait(10)
    good = policy.read_bytes()
    if rubbish is None:
        policy.unlink()
    else:
        policy.write_bytes(rubbish)
    with GatewayProcess(policy, state) as gateway:
        seen = gateway.http.get("/policy").json()
        assert (seen["in_force"]["sha256"], seen["file_is_in_force"]) == (before, False)
        assert seen["problems"]
        assert gateway.metric("hybrid_router_policy_file_valid") == 0
        assert gateway.infer(**BODY)["route"]["policy"] == "documents"
        policy.write_bytes(good)
        gateway.wait_until(lambda it: it.http.get("/policy").json()["file_is_in_force"])


def test_a_first_start_with_a_bad_policy_file_is_refused(policy: Path, state: dict[str, str]) -> None:
    policy.write_bytes(b"backends: [")
    ended = start("--policy", str(policy), env=os.environ | state)
    assert ended.returncode == 1
    assert "line 1: not YAML" in ended.stderr
    assert "Traceback" not in ended.stderr


def start(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Starts a gateway that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "app", "serve", "--port", "0", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


def test_two_gateways_do_not_share_their_books(policy: Path, state: dict[str, str]) -> None:
    with GatewayProcess(policy, state):
        second = start("--policy", str(policy), env=os.environ | state)
    assert second.returncode == 1
    assert "is in use by another gateway. Stop that one, or give this one a folder of its own." in second.stderr
    assert "Traceback" not in second.stderr


def test_a_folder_that_cannot_be_written_costs_the_memory_not_the_service(policy: Path) -> None:
    with GatewayProcess(policy, {"HYBRID_ROUTER_STATE_DIR": "/proc/no-such-folder"}) as gateway:
        gateway.wait_until(is_up)
        assert gateway.infer(**BODY)["route"]["backend"] == "cloud"
        problems = gateway.http.get("/status").json()["ledger_problems"]
        assert problems
        assert all("/proc/no-such-folder" in problem for problem in problems)
        assert spent(gateway) > 0


@pytest.mark.parametrize(("handed", "sentence"), [("file", "is not a listening"), ("plain", "does not listen")])
def test_a_descriptor_that_is_no_listening_socket_is_refused_in_a_sentence(
    policy: Path, state: dict[str, str], handed: str, sentence: str
) -> None:
    with socket.socket() as plain, policy.open() as file:
        descriptor = plain.fileno() if handed == "plain" else file.fileno()
        plain.bind(("127.0.0.1", 0))
        ended = start("--policy", str(policy), "--fd", str(descriptor), pass_fds=[descriptor], env=os.environ | state)
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_socket_that_others_can_reach_needs_a_key(policy: Path, state: dict[str, str]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as exposed:
        ended = start(
            "--policy", str(policy), "--fd", str(exposed.fileno()), pass_fds=[exposed.fileno()], env=os.environ | state
        )
    assert ended.returncode == 1
    assert "HYBRID_ROUTER_API_KEY" in ended.stderr


COLLECTS = """
import gc, os, signal
from app.server import serve
from app.settings import Settings

def announce(_):
    print("collects" if gc.isenabled() else "does not collect", flush=True)
    os.kill(os.getpid(), signal.SIGINT)

gc.disable()
serve(Settings(port=0, grpc_port=None), announce)
"""


def test_the_garbage_collector_is_on_once_the_gateway_is_there(policy: Path, state: dict[str, str]) -> None:
    """The command leaves it off until then."""
    environment = os.environ | state | {"HYBRID_ROUTER_POLICY": str(policy)}
    command = [sys.executable, "-c", COLLECTS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "collects\n", done.stderr
