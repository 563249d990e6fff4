"""Nothing reports home: ONNX Runtime would keep a device id and a queue of events in the home directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.gateway_process import GatewayProcess, policy_text


def test_a_gateway_leaves_nothing_in_its_home(start_gateway: Callable[..., GatewayProcess], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    gateway = start_gateway(
        policy_text("grpc://127.0.0.1:9"), HOME=str(home), XDG_CACHE_HOME="", ORT_DISABLE_TELEMETRY="0"
    )
    assert gateway.infer(model="digits", inputs={"pixels": [[0.0] * 64]})["route"]["backend"] == "edge"
    assert list(home.rglob("*")) == []
