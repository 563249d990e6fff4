"""Settings of the property tests: no deadline, because how fast a machine is says nothing about what is right."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from app.cloud import TritonProcess
from backends.hailo import HailoVariant
from backends.hailo_device import DEVICE
from tests.gateway_process import GatewayProcess, policy_text
from tests.hat import standin, write_samples

settings.register_profile("contract", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("contract")


@pytest.fixture(scope="session")
def far_gateway(triton: TritonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Another gateway of ours, whose models are answered by the Triton that nobody may harm."""
    file = tmp_path_factory.mktemp("far") / "policy.yaml"
    file.write_text(policy_text(triton.grpc_url))
    with GatewayProcess(file, {}) as gateway:
        gateway.wait_until(lambda it: all(len(by) == 2 for by in it.http.get("/readyz").json()["models"].values()))
        yield gateway


@pytest.fixture
def module() -> Iterator[Any]:
    """HailoRT's stand-in; at the end no thread of HailoRT's or of the backend's is left, and the chip is free.

    It has to be free without a collection of garbage, which may come late or never.
    """
    before = set(threading.enumerate())
    with standin() as found, without_collections():
        yield found
        found.CHIP.gate.set()
        until = time.monotonic() + 5
        while left := [t for t in set(threading.enumerate()) - before if "hailo" in t.name or "standin" in t.name]:
            assert time.monotonic() < until, left
            time.sleep(0.005)
        assert not found.CHIP.owned
        assert DEVICE.health() is None


@contextmanager
def without_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def variants(module: Any, tmp_path: Path) -> Mapping[str, HailoVariant]:
    return write_samples(module, tmp_path)


@pytest.fixture
def chip(module: Any) -> Any:
    return module.CHIP
