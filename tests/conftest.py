"""What the tests run against: a real Triton, started once, and real gateways in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from app.cloud import CloudPorts, TritonProcess
from tests.gateway_process import GatewayProcess, policy_text

ROOT = Path(__file__).parent.parent

os.environ["HYBRID_ROUTER_GRPC_PORT"] = "0"  # of every gateway that a test starts: many run at once


@pytest.fixture(scope="session")
def triton() -> Iterator[TritonProcess]:
    """A Triton that nobody may harm."""
    with TritonProcess(CloudPorts(0, 0, 0)) as process:
        yield process


@pytest.fixture
def mortal_triton() -> Iterator[TritonProcess]:
    """A Triton of the test's own, to be killed, stopped and started again."""
    with TritonProcess(CloudPorts(0, 0, 0)) as process:
        yield process
        if process.running:  # its way to end by itself takes seconds, and has tests of its own
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts a gateway process: `start_gateway(policy_text, **environment)`; all of them end with the test."""
    with ExitStack() as running:

        def start(policy: str, **environment: str) -> GatewayProcess:
            file = tmp_path / "policy.yaml"
            file.write_text(policy)
            return running.enter_context(GatewayProcess(file, environment))

        yield start


@pytest.fixture
def gateway(start_gateway: Callable[..., GatewayProcess], triton: TritonProcess) -> GatewayProcess:
    """A gateway with the default policy file, before the Triton that nobody may harm."""
    return start_gateway(policy_text(triton.grpc_url))


@pytest.fixture(scope="session")
def holdout() -> tuple[np.ndarray, np.ndarray]:
    """The held-out digits: pixels float32 [540, 64], labels int64 [540]."""
    with np.load(ROOT / "deploy/models/digits-holdout.npz") as data:
        return data["pixels"], data["labels"]
