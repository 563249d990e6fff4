"""The cloud crashes, hangs, comes back, or was never there: clients get their answers all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.cloud import TritonProcess
from router.instance import FIRST_SAMPLES
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import BLANK, Answer, Clients, is_up, served_by, target

DEADLINE_MS = 1000.0
SOME = 100
"""How many answers make a state of affairs: a dozen from each client."""

BODY = {"model": "digits", "inputs": {"pixels": BLANK}, "deadline_ms": DEADLINE_MS}


@pytest.fixture
def exposed(start_gateway: Callable[..., GatewayProcess], mortal_triton: TritonProcess) -> GatewayProcess:
    """A gateway before a cloud that may be harmed."""
    gateway = start_gateway(policy_text(mortal_triton.grpc_url))
    gateway.wait_until(is_up)
    return gateway


@contextmanager
def stopped(process: TritonProcess) -> Iterator[None]:
    """Hangs the server for a while."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def from_cloud(answers: list[Answer]) -> bool:
    """Whether the latest answers all came from the cloud."""
    latest = answers[-SOME:]
    return len(latest) == SOME and all(answer.backend == "cloud" and not answer.degraded for answer in latest)


def from_edge(answers: list[Answer]) -> bool:
    """Whether the latest answers all came from the device, and said so."""
    latest = answers[-SOME:]
    return len(latest) == SOME and all(answer.backend == "edge" and answer.degraded for answer in latest)


def is_settled(gateway: GatewayProcess) -> bool:
    """Whether the cloud is up and known well enough that no made-up inference goes there for a while."""
    view = target(gateway, "digits", "cloud")
    return bool(view["available"]) and view["latency"]["samples"] >= FIRST_SAMPLES


def assert_nobody_noticed(clients: Clients) -> None:
    assert clients.failures() == []
    late = [answer for answer in clients.answers if answer.latency_ms > DEADLINE_MS]
    assert late == []


def test_a_crash_is_survived_and_the_return_is_noticed(exposed: GatewayProcess, mortal_triton: TritonProcess) -> None:
    with Clients(exposed, BODY) as clients:
        clients.wait_for(from_cloud, "the cloud answers")
        os.kill(mortal_triton.pid, signal.SIGKILL)
        clients.wait_for(from_edge, "the device answers instead")
        assert exposed.http.get("/readyz").status_code == 200
        assert target(exposed, "digits", "cloud")["problem"]
        mortal_triton.start()
        mortal_triton.wait_ready()
        clients.wait_for(from_cloud, "the cloud answers again")
    assert_nobody_noticed(clients)
    assert {answer.backend: answer.degraded for answer in clients.answers} == {"cloud": False, "edge": True}


def test_a_hang_is_survived_and_its_end_is_noticed(exposed: GatewayProcess, mortal_triton: TritonProcess) -> None:
    with Clients(exposed, BODY) as clients:
        clients.wait_for(from_cloud, "the cloud answers")
        with stopped(mortal_triton):
            clients.wait_for(from_edge, "the device answers instead")
            assert exposed.metric("hybrid_router_backend_up", backend="cloud", model="digits") == 0
            # Once the breaker is open nobody waits for the cloud any more.
            quick = clients.wait_for(lambda answers: len(answers) >= SOME, "more answers come")
            assert max(answer.latency_ms for answer in quick) < DEADLINE_MS / 2
        clients.wait_for(from_cloud, "the cloud answers again")
    assert_nobody_noticed(clients)


def test_a_gateway_that_starts_before_the_cloud_does_not_wait_for_it(
    start_gateway: Callable[..., GatewayProcess], mortal_triton: TritonProcess
) -> None:
    os.kill(mortal_triton.pid, signal.SIGKILL)
    gateway = start_gateway(policy_text(mortal_triton.grpc_url))
    assert gateway.http.get("/readyz").json()["models"] == {"digits": ["edge"], "embed": ["edge"]}
    answer = gateway.infer(**BODY)
    assert (answer["route"]["backend"], answer["route"]["degraded"]) == ("edge", True)
    mortal_triton.start()
    mortal_triton.wait_ready()
    gateway.wait_until(is_up)
    answer = gateway.infer(**BODY)
    assert (answer["route"]["backend"], answer["route"]["degraded"]) == ("cloud", False)


def test_a_gateway_that_starts_before_a_hung_cloud_serves_locally(
    start_gateway: Callable[..., GatewayProcess], mortal_triton: TritonProcess
) -> None:
    with stopped(mortal_triton):
        gateway = start_gateway(policy_text(mortal_triton.grpc_url))
        assert gateway.http.get("/readyz").status_code == 200
        assert gateway.infer(**BODY)["route"]["backend"] == "edge"
    gateway.wait_until(is_up)
    assert gateway.infer(**BODY)["route"]["backend"] == "cloud"


def test_no_phi_ever_reaches_the_cloud(exposed: GatewayProcess, mortal_triton: TritonProcess) -> None:
    """Counted by a Triton of its own, for the gateways of other tests send theirs made-up inferences."""
    exposed.wait_until(is_settled)
    before = {model: served_by(mortal_triton, model) for model in ("digits", "digits_image")}
    with Clients(exposed, BODY | {"data_class": "phi"}, count=4) as clients:
        clients.wait_for(lambda answers: len(answers) >= SOME, "answers come")
    assert clients.failures() == []
    assert {(answer.backend, answer.degraded) for answer in clients.answers} == {("edge", False)}
    assert {model: served_by(mortal_triton, model) for model in before} == before
    assert exposed.metric("hybrid_router_bytes_out_total", site="cloud") == 0
    assert exposed.metric("hybrid_router_bytes_out_total") == 0
    assert exposed.metric("hybrid_router_attempts_total", backend="cloud") == 0
    # The count can count: the same request without the class does go there.
    exposed.infer(**BODY)
    assert served_by(mortal_triton, "digits") == before["digits"] + 1
    assert exposed.metric("hybrid_router_bytes_out_total", site="cloud") == 64 * 4


def test_phi_stays_here_even_where_the_policy_would_send_it_away(
    start_gateway: Callable[..., GatewayProcess], mortal_triton: TritonProcess
) -> None:
    """Routes mend nothing about residency, and break nothing of it either."""
    gateway = start_gateway(policy_text(mortal_triton.grpc_url).replace("policy: kiosk}", "policy: documents}"))
    gateway.wait_until(is_settled)
    before = served_by(mortal_triton, "digits")
    for _ in range(20):
        answer = gateway.infer(**BODY, data_class="phi")
        assert (answer["route"]["policy"], answer["route"]["backend"]) == ("documents", "edge")
    assert served_by(mortal_triton, "digits") == before
    assert gateway.metric("hybrid_router_bytes_out_total") == 0
