"""A gateway on a device whose sensors are the test's own: what it reads, does and shows, and what it survives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cloud import TritonProcess
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import BLANK, is_up

ENDS_WITHIN_S = 5.0


@pytest.fixture
def zone(tmp_path: Path) -> Path:
    """A processor's thermal zone at 50 °C, below the root `tmp_path / "device"`."""
    zone = tmp_path / "device/sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    zone.joinpath("type").write_text("cpu-thermal\n")
    zone.joinpath("temp").write_text("50000\n")
    return zone


@pytest.fixture
def gateway(tmp_path: Path, zone: Path, triton: TritonProcess) -> Iterator[GatewayProcess]:
    """A gateway on that device, whose load average never comes: opening it waits for a writer that there is not."""
    proc = tmp_path / "device/proc"
    proc.mkdir()
    os.mkfifo(proc / "loadavg")
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(triton.grpc_url))
    with GatewayProcess(policy, {"HYBRID_ROUTER_DEVICE_ROOT": str(tmp_path / "device")}) as gateway:
        gateway.wait_until(is_up)
        yield gateway


def answered_by(gateway: GatewayProcess, data_class: str) -> str:
    route = gateway.infer(model="digits", inputs={"pixels": BLANK}, data_class=data_class)["route"]
    return f"{route['backend']}, {'spared' if 'edge is spared' in route['reason'] else 'as usual'}"


def test_a_hot_device_hands_over_what_may_leave_and_a_sensor_that_hangs_costs_itself_alone(
    gateway: GatewayProcess, zone: Path
) -> None:
    gateway.wait_until(lambda it: it.metric("hybrid_router_device_temperature_celsius", sensor="soc") == 50)
    assert answered_by(gateway, "phi") == "edge, as usual"
    zone.joinpath("temp").write_text("77000\n")
    gateway.wait_until(lambda it: it.metric("hybrid_router_device_strain", strain="warm") == 1)
    assert answered_by(gateway, "camera") == "cloud, spared"
    assert answered_by(gateway, "phi") == "edge, as usual"

    gateway.wait_until(lambda it: it.metric("hybrid_router_device_sensor_silent", source="kernel") == 1)
    device = gateway.http.get("/status").json()["device"]
    assert (device["strain"], device["soc_c"], device["load_1m"], device["silent"]) == ("warm", 77, None, ["kernel"])
    assert device["disk_bytes"] > 0
    assert "Traceback" not in gateway.log()

    told = time.monotonic()
    gateway.process.terminate()
    assert gateway.process.wait(timeout=20) == 0
    assert time.monotonic() - told < ENDS_WITHIN_S, "a sensor that hangs must not keep the process from ending"
