"""One gateway before another: nothing that the first was told of a request is lost on the way to the second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cloud import TritonProcess
from tests.gateway_process import ROOT, GatewayProcess, policy_text
from tests.integration.scenario import BLANK, edited, is_up

SAMPLE = (ROOT / "policies/samples/edge-to-edge.yaml").read_text()
KEY = "the-key-of-the-hub"


@pytest.fixture
def hub(triton: TritonProcess, tmp_path: Path) -> Iterator[GatewayProcess]:
    """The second gateway, which asks for a key: `phi` stays on its device, all else goes to its cloud first."""
    file = tmp_path / "hub.yaml"
    file.write_text(policy_text(triton.grpc_url))
    with GatewayProcess(file, {"HYBRID_ROUTER_API_KEY": KEY}) as gateway:
        gateway.wait_until(is_up)
        yield gateway


def before(hub: GatewayProcess, **residency: Any) -> str:
    """The sample policy before that hub, with nobody else to ask."""

    def change(content: dict[str, Any]) -> None:
        content["backends"]["hub"]["url"] = hub.url
        del content["models"]["digits"]["variants"]["edge"]
        content["residency"] |= residency

    return edited(SAMPLE, change)


def test_the_data_class_decides_at_the_second_gateway_too(
    start_gateway: Callable[..., GatewayProcess], hub: GatewayProcess
) -> None:
    near = start_gateway(before(hub), HUB_KEY=KEY)
    near.wait_until(lambda it: is_up(it, "hub"))
    for data_class, policy in (("phi", "kiosk"), (None, "documents")):
        before_it = hub.metric("hybrid_router_requests_total", policy=policy)
        facts = {} if data_class is None else {"data_class": data_class}
        answer = near.infer(model="digits", inputs={"pixels": BLANK}, priority="high", deadline_ms=5000, **facts)
        assert answer["route"]["backend"] == "hub"
        assert hub.metric("hybrid_router_requests_total", policy=policy) > before_it
    assert hub.metric("hybrid_router_requests_total", policy="kiosk", backend="cloud") == 0


def test_a_class_that_the_second_gateway_does_not_know_is_refused_there(
    start_gateway: Callable[..., GatewayProcess], hub: GatewayProcess
) -> None:
    near = start_gateway(before(hub, secret={"sites": ["back-office"]}), HUB_KEY=KEY)
    near.wait_until(lambda it: is_up(it, "hub"))
    body = {"model": "digits", "inputs": {"pixels": BLANK}, "data_class": "secret", "deadline_ms": 5000}
    refused = near.http.post("/infer", json=body)
    assert refused.status_code == 400
    assert "secret" in refused.json()["detail"]
    assert is_up(near, "hub"), "it is no sign of ill health"
    near.infer(model="digits", inputs={"pixels": BLANK}, deadline_ms=5000)


@pytest.mark.parametrize("key", ["", "another-key-than-that"])
def test_without_the_right_key_the_second_gateway_is_away_and_status_says_why(
    start_gateway: Callable[..., GatewayProcess], hub: GatewayProcess, key: str
) -> None:
    near = start_gateway(before(hub), HUB_KEY=key)

    def why(gateway: GatewayProcess) -> str:
        (target,) = gateway.http.get("/status").json()["models"]["digits"]["targets"]
        assert not target["available"]
        return str(target)

    near.wait_until(lambda it: ("HUB_KEY" if not key else "asks for a key") in why(it))
    assert KEY not in why(near)


def test_while_the_second_gateway_is_gone_the_device_answers(
    start_gateway: Callable[..., GatewayProcess], hub: GatewayProcess
) -> None:
    near = start_gateway(SAMPLE.replace("http://hub.local:8080", hub.url), HUB_KEY=KEY)
    near.wait_until(lambda it: is_up(it, "hub"))
    assert near.infer(model="digits", inputs={"pixels": BLANK})["route"]["backend"] == "hub"
    hub.process.kill()
    answer = near.infer(model="digits", inputs={"pixels": BLANK})
    assert (answer["route"]["backend"], answer["route"]["degraded"]) == ("edge", True)
