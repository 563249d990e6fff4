"""A gateway and a real Triton that have, beside the samples, a model that gives back a tensor of every datatype."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from app.cloud import CloudPorts, TritonProcess
from tests.gateway_process import DEFAULT_POLICY, ROOT, GatewayProcess
from tests.integration.identity_model import identity_policy, save_identity_model


@contextmanager
def gateway_of_every_type() -> Iterator[tuple[str, str]]:
    """A gateway that answers on the device alone; gives its URL and its address for gRPC."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        (models / "digits-edge.onnx").symlink_to(ROOT / "deploy/models/digits-edge.onnx")
        save_identity_model(models / "identity.onnx")
        policy = yaml.safe_load(identity_policy(models / "identity.onnx"))
        digits = yaml.safe_load(DEFAULT_POLICY.read_text())["models"]["digits"]
        policy["models"] = {"digits": digits | {"variants": {"edge": digits["variants"]["edge"]}}} | policy["models"]
        (models / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
        with GatewayProcess(models / "policy.yaml", {"HYBRID_ROUTER_MODELS_DIR": folder}) as gateway:
            for model in ("digits", "identity"):
                gateway.wait_until(lambda it, path=f"/v2/models/{model}/ready": it.http.get(path).status_code == 200)
            yield gateway.url, gateway.grpc


@contextmanager
def triton_of_every_type() -> Iterator[tuple[str, str]]:
    """Triton with the sample models too; gives its URL and its address for gRPC."""
    with tempfile.TemporaryDirectory() as folder:
        for model in (*(ROOT / "deploy/triton/models").iterdir(), ROOT / "tests/contract/triton_models/every_type"):
            (Path(folder) / model.name).symlink_to(model)
        with TritonProcess(CloudPorts(0, 0, 0), repository=Path(folder)) as process:
            yield process.http_url, process.grpc_url.removeprefix("grpc://")
