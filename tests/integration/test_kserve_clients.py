"""KServe's `InferenceRESTClient` and `InferenceGRPCClient`, unmodified, against a live gateway: `make peers`."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.gateway_process import ROOT, GatewayProcess
from tests.integration.scenario import MODELS

PYTHON = ROOT / ".venv-peers/kserve/bin/python"
SCRIPT = ROOT / "tests/peers/kserve_clients.py"


@pytest.fixture(scope="module")
def seen(steady: GatewayProcess) -> dict[str, Any]:
    """What the clients saw."""
    assert PYTHON.exists(), "KServe is not installed: run make peers"
    done = subprocess.run([PYTHON, SCRIPT, steady.url, steady.grpc], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("side", ["rest", "grpc"])
def test_they_see_a_gateway_that_is_ready(seen: dict[str, Any], side: str) -> None:
    assert [seen[side][question] for question in ("live", "ready", "model_ready")] == [True, True, True]
    assert not seen[side].get("unknown_ready", False)


@pytest.mark.parametrize(("side", "form"), [("rest", "json"), ("rest", "binary"), ("grpc", "json"), ("grpc", "binary")])
def test_they_get_the_models_answer(seen: dict[str, Any], steady: GatewayProcess, side: str, form: str) -> None:
    answer = seen[side][form]
    if (side, form) == ("rest", "binary") and "binary_tensor_data" not in steady.http.get("/v2").json()["extensions"]:
        assert answer is None
        return
    assert (answer["id"], answer["model"]) == ("seventeen", "digits")
    rows = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (3, 1))
    session = onnxruntime.InferenceSession(str(MODELS / "digits-edge.onnx"), providers=["CPUExecutionProvider"])
    label, probabilities = session.run(["label", "probabilities"], {"pixels": rows})
    assert answer["outputs"]["label"] == ["INT64", [3], label.tolist()]
    datatype, shape, values = answer["outputs"]["probabilities"]
    assert (datatype, shape) == ("FP32", [3, 10])
    np.testing.assert_allclose(values, probabilities, atol=1e-5)


def test_they_read_our_errors(seen: dict[str, Any]) -> None:
    assert "There is no model 'nonsense'" in seen["rest"]["unknown"]
    assert "404" in seen["rest"]["unknown"]
    assert seen["grpc"]["unknown"].startswith("NOT_FOUND: There is no model 'nonsense'")
    assert "[3, 63]" in seen["rest"]["wrong_shape"]
    assert seen["grpc"]["wrong_shape"].startswith("INVALID_ARGUMENT: ")
    assert "[3, 63]" in seen["grpc"]["wrong_shape"]
