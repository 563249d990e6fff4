"""One gateway for all tests that only ask: starting one takes a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.cloud import TritonProcess
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import is_up


@pytest.fixture(scope="session")
def steady(triton: TritonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with the default policy file that nobody may harm, before the Triton that nobody may harm."""
    file = tmp_path_factory.mktemp("steady") / "policy.yaml"
    file.write_text(policy_text(triton.grpc_url))
    with GatewayProcess(file, {}) as gateway:
        gateway.wait_until(is_up)
        gateway.wait_until(lambda it: is_up(it, model="embed"))
        yield gateway
