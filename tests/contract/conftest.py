"""Settings of the property tests: no deadline, because how fast a machine is says nothing about what is right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from app.cloud import TritonProcess
from tests.gateway_process import GatewayProcess, policy_text

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
