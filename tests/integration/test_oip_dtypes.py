"""Every datatype, there and back: over JSON and raw, through ONNX Runtime on the device and through Triton."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import tritonclient.http as oip

from app.cloud import CloudPorts, TritonProcess
from backends.oip import datatype, encode_raw
from router.model import DTYPES, Tensor
from tests.gateway_process import GatewayProcess
from tests.integration.identity_cloud import cloud_identity_policy, save_identity_repository
from tests.integration.identity_model import ON_DEVICE, WIDTH, identity_policy, identity_section, save_identity_model
from tests.integration.scenario import edited, is_up

ROWS = 3
BESIDE_BFLOAT16 = ("bfloat16", "float32", "bool")
"""What the second model on the device has: text and bfloat16 cannot be together there."""


class Identity(NamedTuple):
    """A gateway, and which dtypes its models have."""

    gateway: GatewayProcess
    models: dict[str, tuple[str, ...]]


def extremes(dtype: str) -> Tensor:
    """The least, the greatest and other telling values of a dtype, as [3, 2]."""
    if dtype == "string":
        return np.array([[b"", b"a"], ["ä€😀".encode(), b"\n\0"], [b'"', b"x" * 300]], object)
    if dtype == "bool":
        return np.array([[True, False], [False, True], [True, True]])
    wanted = DTYPES[dtype]
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        return np.array([[limits.min, limits.max], [0, 1], [limits.max - 1, 2]], wanted)
    return np.array([[0.0, -0.0], [1.5, -2.25], [1e-3, 6e4]], wanted)


def odd(dtype: str) -> Tensor:
    """What JSON has no word for, where the dtype has such values."""
    if DTYPES[dtype].kind not in "fV":
        return extremes(dtype)
    return np.array([[np.nan, np.inf], [-np.inf, 1.0], [0.0, 2.0]], DTYPES[dtype])


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("identity")
    save_identity_model(folder / "identity.onnx")
    save_identity_model(folder / "bfloat16.onnx", BESIDE_BFLOAT16)
    second = {"bfloat16": identity_section(BESIDE_BFLOAT16, {"edge": {"file": "bfloat16.onnx"}})}
    policy = edited(identity_policy(folder / "identity.onnx"), lambda content: content["models"].update(second))
    (folder / "policy.yaml").write_text(policy)
    with GatewayProcess(folder / "policy.yaml", {"HYBRID_ROUTER_MODELS_DIR": str(folder)}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("identity")
    repository = save_identity_repository(folder / "repository")
    with TritonProcess(CloudPorts(0, 0, 0), repository=repository) as cloud:
        (folder / "policy.yaml").write_text(cloud_identity_policy(cloud, folder / "identity.onnx"))
        with GatewayProcess(folder / "policy.yaml", {}) as gateway:
            gateway.wait_until(lambda it: is_up(it, model="identity"))
            yield gateway


@pytest.fixture(params=["local", "remote"])
def identity(request: pytest.FixtureRequest) -> Identity:
    """The one that runs its models on the device, and the one that has Triton run its."""
    gateway: GatewayProcess = request.getfixturevalue(request.param)
    on_device = {"identity": ON_DEVICE, "bfloat16": BESIDE_BFLOAT16}
    return Identity(gateway, on_device if request.param == "local" else {"identity": tuple(DTYPES)})


def described(dtype: str, **more: Any) -> dict[str, Any]:
    return {"name": dtype, "datatype": datatype(dtype), "shape": [ROWS, WIDTH], **more}


def ask(gateway: GatewayProcess, model: str, document: dict[str, Any], raw: bytes) -> httpx.Response:
    content = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(content))}
    response = gateway.http.post(f"/v2/models/{model}/infer", content=content + raw, headers=headers)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("values", [extremes, odd])
def test_raw_tensors_come_back_bit_by_bit(identity: Identity, values: Callable[[str], Tensor]) -> None:
    for model, dtypes in identity.models.items():
        raw = {dtype: encode_raw(values(dtype)) for dtype in dtypes}
        inputs = [described(dtype, parameters={"binary_data_size": len(raw[dtype])}) for dtype in dtypes]
        document = {"inputs": inputs, "parameters": {"binary_data_output": True}}
        response = ask(identity.gateway, model, document, b"".join(raw.values()))
        assert response.headers["content-type"] == "application/octet-stream"
        at = int(response.headers["inference-header-content-length"])
        for output, dtype in zip(json.loads(response.content[:at])["outputs"], dtypes, strict=True):
            assert (output["name"], output["datatype"]) == (f"{dtype}_out", datatype(dtype))
            assert output["shape"] == [ROWS, WIDTH]
            end = at + output["parameters"]["binary_data_size"]
            assert response.content[at:end] == raw[dtype], dtype
            at = end
        assert at == len(response.content)


def test_json_tensors_come_back_as_they_were(identity: Identity) -> None:
    for model, dtypes in identity.models.items():
        in_json = [dtype for dtype in dtypes if dtype != "bfloat16"]
        inputs = [described(dtype, data=written(extremes(dtype))) for dtype in in_json]
        raw = b""
        if "bfloat16" in dtypes:
            raw = encode_raw(extremes("bfloat16"))
            inputs.append(described("bfloat16", parameters={"binary_data_size": len(raw)}))
        outputs = [{"name": f"{dtype}_out"} for dtype in in_json]
        response = ask(identity.gateway, model, {"inputs": inputs, "outputs": outputs}, raw)
        for output, dtype in zip(response.json()["outputs"], in_json, strict=True):
            data = [text.encode() for text in output["data"]] if dtype == "string" else output["data"]
            assert np.array(data, DTYPES[dtype]).tolist() == extremes(dtype).reshape(-1).tolist(), dtype


def written(tensor: Tensor) -> Any:
    return json.loads(json.dumps(tensor.tolist(), default=lambda item: item.decode()))


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
def test_tritonclient_sends_and_reads_every_datatype(identity: Identity, binary: bool) -> None:
    for model, dtypes in identity.models.items():
        inputs, outputs = [], []
        for dtype in dtypes:
            raw = binary or dtype in ("float16", "bfloat16")  # the client sends neither in JSON
            inputs.append(oip.InferInput(dtype, [ROWS, WIDTH], datatype(dtype)))
            inputs[-1].set_data_from_numpy(extremes(dtype), binary_data=raw)
            outputs.append(oip.InferRequestedOutput(f"{dtype}_out", binary_data=raw))
        with oip.InferenceServerClient(identity.gateway.url.removeprefix("http://"), network_timeout=20.0) as client:
            answer = client.infer(model, inputs, outputs=outputs)
        for dtype in dtypes:
            found = answer.as_numpy(f"{dtype}_out")
            if dtype == "string" and not binary:
                found = np.array([[item.encode() for item in row] for row in found], object)
            np.testing.assert_array_equal(found, extremes(dtype).astype(found.dtype), dtype)


def test_bfloat16_in_json_is_refused_in_words(local: GatewayProcess) -> None:
    response = local.http.post("/v2/models/bfloat16/infer", json={"inputs": [described("bfloat16", data=[1.0] * 6)]})
    assert response.status_code == 400
    assert "no form in JSON; send it as binary data" in response.json()["error"]


def test_the_native_route_has_bfloat16_as_numbers(local: GatewayProcess) -> None:
    inputs = {"bfloat16": [[1.5, -2.0]], "float32": [[0.1, 0.2]], "bool": [[True, False]]}
    assert local.infer(model="bfloat16", inputs=inputs)["outputs"]["bfloat16_out"] == [[1.5, -2.0]]
