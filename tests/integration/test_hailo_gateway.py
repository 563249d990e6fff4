"""A gateway whose edge is a HAT: it starts without one and says what is missing, and answers on one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import DEFAULT_POLICY, GatewayProcess
from tests.hat import STANDINS, standin, write_samples

VARIANT = (
    "{file: digits.hef, outputs: {label: {stream: digits/argmax1, layout: flat}, "
    "probabilities: {stream: digits/softmax1}}}"
)
PIXELS = [[0.5] * 64]


def policy() -> str:
    """The sample, with a HAT before its edge."""
    text = DEFAULT_POLICY.read_text()
    price = "    price: {device: {hardware_usd: 200, lifetime_years: 3, watts: 5, usd_per_kwh: 0.12, "
    price += "operations_usd_per_year: 50, inferences_per_month: 2160000}}\n"
    text = text.replace("backends:\n", f"backends:\n  hat:\n    kind: hailo\n    site: on-premises\n{price}", 1)
    return text.replace(
        "      edge: {file: digits-edge.onnx}", f"      hat: {VARIANT}\n      edge: {{file: digits-edge.onnx}}"
    )


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """The sample models, and the digits as a `.hef`."""
    folder = tmp_path / "models"
    folder.mkdir()
    with standin() as module:
        write_samples(module, folder)
    for file in (DEFAULT_POLICY.parents[2] / "deploy/models").glob("*.onnx"):
        (folder / file.name).symlink_to(file)
    return folder


def hat(gateway: GatewayProcess) -> Any:
    """What `/status` says of the HAT."""
    targets = gateway.http.get("/status").json()["models"]["digits"]["targets"]
    return next(target for target in targets if target["backend"] == "hat")


def test_without_hailort_it_starts_and_status_says_what_to_install(
    start_gateway: Callable[..., GatewayProcess], models_dir: Path
) -> None:
    gateway = start_gateway(policy(), HYBRID_ROUTER_MODELS_DIR=str(models_dir))
    gateway.wait_until(lambda g: hat(g)["problem"])
    assert not hat(gateway)["available"]
    assert "Install hailo-all" in hat(gateway)["problem"]
    assert gateway.infer(model="digits", data_class="phi", inputs={"pixels": PIXELS})["route"]["backend"] == "edge"


def test_with_hailort_and_a_hat_the_hat_answers(start_gateway: Callable[..., GatewayProcess], models_dir: Path) -> None:
    path = f"{STANDINS}:{os.environ.get('PYTHONPATH', '')}"
    gateway = start_gateway(policy(), HYBRID_ROUTER_MODELS_DIR=str(models_dir), PYTHONPATH=path)
    gateway.wait_until(lambda g: hat(g)["available"])
    answer = gateway.infer(model="digits", data_class="phi", inputs={"pixels": PIXELS})
    assert answer["route"]["backend"] == "hat"
    assert len(answer["outputs"]["probabilities"][0]) == 10
    gateway.wait_until(lambda g: g.metric("hybrid_router_device_temperature_celsius", sensor="hat") > 0)
