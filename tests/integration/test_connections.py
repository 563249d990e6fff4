"""Clients that hang up, dawdle or stop in the middle; and what ends a gateway, or keeps it from starting."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.cloud import TritonProcess
from tests.gateway_process import DEFAULT_POLICY, ROOT, GatewayProcess, policy_text
from tests.integration.scenario import BLANK, cloud_only, is_up, open_files

NOWHERE = "grpc://127.0.0.1:9"
BODY = {"model": "digits", "inputs": {"pixels": BLANK}}


@contextmanager
def hanging(process: TritonProcess) -> Iterator[None]:
    """Hangs the server for a while."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@contextmanager
def connection(gateway: GatewayProcess, content: bytes) -> Iterator[socket.socket]:
    """A raw connection over which this was sent."""
    url = httpx.URL(gateway.url)
    with socket.create_connection((url.host, url.port or 80), timeout=20) as raw:
        raw.sendall(content)
        yield raw


def request(body: bytes, length: int | None = None) -> bytes:
    head = f"POST /infer HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


def in_flight(gateway: GatewayProcess) -> float:
    return gateway.metric("hybrid_router_in_flight", model="digits", backend="cloud")


def test_a_deadline_that_nobody_can_meet_is_a_504(
    start_gateway: Callable[..., GatewayProcess], mortal_triton: TritonProcess
) -> None:
    gateway = start_gateway(cloud_only(policy_text(mortal_triton.grpc_url)))
    gateway.wait_until(is_up)
    with hanging(mortal_triton):
        response = gateway.http.post("/infer", json=BODY | {"deadline_ms": 200})
        assert response.status_code == 504, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "deadline-exceeded"
        assert "200 ms" in response.json()["detail"]
        assert response.elapsed.total_seconds() < 2
    gateway.wait_until(is_up)
    assert gateway.infer(**BODY, deadline_ms=5000)["route"]["backend"] == "cloud"


def test_a_clients_hang_up_frees_everything(
    start_gateway: Callable[..., GatewayProcess], mortal_triton: TritonProcess
) -> None:
    gateway = start_gateway(policy_text(mortal_triton.grpc_url))
    gateway.wait_until(is_up)
    gateway.infer(**BODY)
    before = open_files(gateway.process.pid)
    body = json.dumps(BODY | {"deadline_ms": 60_000}).encode()
    for _ in range(3):  # the hang may be found out before any client has hung up
        with hanging(mortal_triton):
            for _ in range(5):
                with connection(gateway, request(body)):
                    gateway.wait_until(lambda it: in_flight(it) >= 1 or not is_up(it))
                gateway.wait_until(lambda it: in_flight(it) == 0)
                if not is_up(gateway):
                    break
        if hung_up := gateway.metric("hybrid_router_requests_total", outcome="hung-up"):
            break
        gateway.wait_until(is_up)
    assert hung_up >= 1
    gateway.wait_until(lambda it: open_files(it.process.pid) <= before)
    gateway.wait_until(is_up)
    assert gateway.infer(**BODY, deadline_ms=5000)["route"]["backend"] == "cloud"
    assert "Traceback" not in gateway.log()


def test_a_hang_up_in_the_middle_of_a_body_frees_everything(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(policy_text(NOWHERE))
    gateway.infer(**BODY)
    before = open_files(gateway.process.pid)
    for part in (b"", b'{"model": '):
        for _ in range(20):
            with connection(gateway, request(part, length=1000)):
                pass
    gateway.wait_until(lambda it: open_files(it.process.pid) <= before)
    assert gateway.infer(**BODY)["route"]["backend"] == "edge"
    assert "Traceback" not in gateway.log()


@pytest.mark.parametrize("part", [b"", b'{"model": '], ids=["nothing", "a part"])
def test_a_body_that_does_not_come_is_a_408(start_gateway: Callable[..., GatewayProcess], part: bytes) -> None:
    gateway = start_gateway(policy_text(NOWHERE), HYBRID_ROUTER_BODY_TIMEOUT_S="0.3")
    with connection(gateway, request(part, length=1000)) as raw:
        raw.settimeout(5)
        answer = raw.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b"application/problem+json" in answer
    assert gateway.infer(**BODY)["route"]["backend"] == "edge"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_gets_its_answer_before_the_end(
    start_gateway: Callable[..., GatewayProcess], mortal_triton: TritonProcess, how: signal.Signals
) -> None:
    gateway = start_gateway(policy_text(mortal_triton.grpc_url))
    gateway.wait_until(is_up)
    with hanging(mortal_triton), ThreadPoolExecutor(1) as thread:
        answer = thread.submit(gateway.infer, **BODY, deadline_ms=1500)
        gateway.wait_until(lambda it: in_flight(it) == 1)
        gateway.process.send_signal(how)
        route = answer.result()["route"]
        assert (route["backend"], route["degraded"]) == ("edge", True)
        assert gateway.process.wait(timeout=10) == 0
    assert "Traceback" not in gateway.log()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{gateway.url}/healthz", trust_env=False)


def test_nothing_under_way_nothing_to_wait_for(start_gateway: Callable[..., GatewayProcess]) -> None:
    """A client that merely keeps its connection open does not keep the gateway."""
    gateway = start_gateway(policy_text(NOWHERE))
    gateway.infer(**BODY)
    gateway.process.terminate()
    assert gateway.process.wait(timeout=5) == 0
    assert "Traceback" not in gateway.log()


def serve(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A gateway that is not meant to start."""
    return subprocess.run(
        [sys.executable, "-m", "app", "serve", "--port", "0", *options],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_is_not_exposed_without_a_key(host: str) -> None:
    ended = serve("--host", host)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == (
        f"Error: {host} can be reached from other machines: set HYBRID_ROUTER_API_KEY (at least 16 characters) "
        "to listen there, or listen on 127.0.0.1\n"
    )


def test_a_short_key_is_no_key() -> None:
    ended = serve(HYBRID_ROUTER_API_KEY="short")
    assert ended.returncode == 1
    assert "HYBRID_ROUTER_API_KEY" in ended.stderr
    assert "16" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_setting_out_of_range_is_named() -> None:
    ended = serve(HYBRID_ROUTER_MAX_BODY_BYTES="many")
    assert ended.returncode == 1
    assert "HYBRID_ROUTER_MAX_BODY_BYTES" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve("--port", str(port))
    assert ended.returncode != 0
    assert f"{port}): address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_policy_file_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(DEFAULT_POLICY.read_text().replace("kind: onnx", "kind: onx"))
    ended = serve("--policy", str(file))
    assert ended.returncode == 1
    assert f"{file}, line 10: backends.edge.kind" in ended.stderr
    assert "Traceback" not in ended.stderr
