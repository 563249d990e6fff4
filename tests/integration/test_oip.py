"""The Open Inference Protocol as an unmodified tritonclient speaks it, with JSON tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.http as oip
import tritonclient.http.aio as oip_aio
from tritonclient.utils import InferenceServerException

from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import BLANK, MODELS, accuracy, cloud_only

NOWHERE = "grpc://127.0.0.1:9"
Holdout = tuple[np.ndarray, np.ndarray]
ROWS = 60


def address(gateway: GatewayProcess) -> str:
    return gateway.url.removeprefix("http://")


@pytest.fixture
def client(steady: GatewayProcess) -> Iterator[oip.InferenceServerClient]:
    with oip.InferenceServerClient(address(steady), network_timeout=20.0) as connection:
        yield connection


def json_input(name: str, array: np.ndarray, datatype: str = "FP32", module: Any = oip) -> Any:
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=False)
    return tensor


def json_outputs(*names: str) -> list[Any]:
    return [oip.InferRequestedOutput(name, binary_data=False) for name in names]


def tensor(data: Any, shape: list[int], name: str = "pixels", datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def infer(gateway: GatewayProcess, inputs: list[Any], path: str = "/v2/models/digits/infer", **more: Any) -> Any:
    return gateway.http.post(path, json={"inputs": inputs, **more})


def error_of(response: Any, status: int) -> str:
    """The sentence of an error in the protocol's form, which is that and nothing else."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert list(document) == ["error"]
    return str(document["error"])


def test_live_ready_and_metadata(client: oip.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("embed", "1")
    assert not client.is_model_ready("nonsense")
    assert client.get_server_metadata()["name"] == "hybrid-router"
    assert client.get_model_metadata("digits") == client.get_model_metadata("digits", "1")
    assert client.get_model_metadata("digits") == {
        "name": "digits",
        "versions": ["1"],
        "platform": "hybrid-router",
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ],
    }


@pytest.mark.parametrize(("data_class", "side"), [("phi", "edge"), ("unclassified", "cloud")])
def test_digits_are_as_right_as_when_they_were_made(
    client: oip.InferenceServerClient, holdout: Holdout, data_class: str, side: str
) -> None:
    pixels, labels = holdout
    right = 0
    for start in range(0, len(labels), ROWS):
        answer = client.infer(
            "digits",
            [json_input("pixels", pixels[start : start + ROWS])],
            outputs=json_outputs("label", "probabilities"),
            parameters={"data_class": data_class, "deadline_ms": 10000},
        )
        document = answer.get_response()
        assert document["parameters"]["backend"] == side
        assert answer.as_numpy("probabilities").shape == (ROWS, 10)
        right += int((answer.as_numpy("label") == labels[start : start + ROWS]).sum())
    assert right == accuracy("digits", side)


def test_embed_answers_too(client: oip.InferenceServerClient, holdout: Holdout) -> None:
    images = holdout[0][:ROWS].reshape(-1, 8, 8)
    answer = client.infer(
        "embed", [json_input("image", images)], "1", outputs=json_outputs("embedding"), headers={"X-Data-Class": "phi"}
    )
    session = onnxruntime.InferenceSession(str(MODELS / "embed-edge.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(answer.as_numpy("embedding"), session.run(None, {"image": images})[0], atol=1e-5)


async def test_the_asyncio_client_is_served_alike(steady: GatewayProcess, holdout: Holdout) -> None:
    pixels, labels = holdout
    async with oip_aio.InferenceServerClient(address(steady)) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("digits")
        assert (await client.get_server_metadata())["name"] == "hybrid-router"
        answer = await client.infer(
            "digits",
            [json_input("pixels", pixels[:ROWS], module=oip_aio)],
            outputs=json_outputs("label"),
            request_id="seventeen",
            headers={"X-Data-Class": "phi"},
        )
        assert int((answer.as_numpy("label") == labels[:ROWS]).sum()) > ROWS * 0.9
        assert answer.get_response()["id"] == "seventeen"
        with pytest.raises(InferenceServerException, match="There is no model 'nonsense'"):
            await client.infer("nonsense", [json_input("pixels", pixels[:1], module=oip_aio)])


def test_errors_reach_the_client_in_our_words(client: oip.InferenceServerClient) -> None:
    row = np.zeros((1, 64), np.float32)
    with pytest.raises(InferenceServerException, match=r"There is no model 'digit'\. Did you mean 'digits'"):
        client.infer("digit", [json_input("pixels", row)])
    with pytest.raises(InferenceServerException, match="digits has no version '2'; it has '1'"):
        client.get_model_metadata("digits", "2")
    with pytest.raises(InferenceServerException, match=r"inputs.pixels has shape \[1, 63\]; it must be \[-1, 64\]"):
        client.infer("digits", [json_input("pixels", row[:, :63])], outputs=json_outputs("label"))
    with pytest.raises(InferenceServerException, match="datatype FP64; it must be FP32"):
        client.infer("digits", [json_input("pixels", row.astype(np.float64), "FP64")], outputs=json_outputs("label"))
    with pytest.raises(InferenceServerException, match="digits has no output 'labels'; it has label, probabilities"):
        client.infer("digits", [json_input("pixels", row)], outputs=json_outputs("labels"))


def test_data_may_be_flat_or_nested(steady: GatewayProcess, holdout: Holdout) -> None:
    rows = holdout[0][:3]
    nested, flat = (
        infer(steady, [tensor(data, [3, 64])], parameters={"data_class": "phi"})
        for data in (rows.tolist(), rows.reshape(-1).tolist())
    )
    assert nested.status_code == flat.status_code == 200
    assert nested.json()["outputs"] == flat.json()["outputs"]
    assert [output["shape"] for output in flat.json()["outputs"]] == [[3], [3, 10]]


def test_only_the_outputs_that_were_asked_for(steady: GatewayProcess) -> None:
    both = infer(steady, [tensor(BLANK, [1, 64])]).json()
    one = infer(steady, [tensor(BLANK, [1, 64])], outputs=[{"name": "label"}]).json()
    assert [output["name"] for output in both["outputs"]] == ["label", "probabilities"]
    assert [output["name"] for output in one["outputs"]] == ["label"]


def test_ids_versions_and_slashes(steady: GatewayProcess) -> None:
    path = "/v2/models/digits/versions/1/infer"
    answer = infer(steady, [tensor(BLANK, [1, 64])], path, id="mine").json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("mine", "digits", "1")
    assert steady.http.get("/v2/").json() == steady.http.get("/v2").json()
    assert steady.http.get("/v2/models/digits/").json()["name"] == "digits"


BAD_INPUTS: dict[str, list[Any]] = {
    "none": [],
    "twice": [tensor(BLANK, [1, 64]), tensor(BLANK, [1, 64])],
    "unknown": [tensor(BLANK, [1, 64], "pixel")],
    "datatype": [tensor(BLANK, [1, 64], datatype="INT8")],
    "nonsense-datatype": [tensor(BLANK, [1, 64], datatype="FLOAT")],
    "shape-and-data": [tensor(BLANK, [2, 64])],
    "shape-and-nesting": [tensor([[0.0] * 32] * 2, [1, 64])],
    "ragged": [tensor([[0.0] * 64, [0.0]], [1, 65])],
    "negative": [tensor(BLANK, [-1, -64])],
    "no-data": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32"}],
    "data-no-list": [tensor(0.0, [1, 64])],
    "vast": [tensor([], [0, 10**30])],
}


@pytest.mark.parametrize("inputs", BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_inputs_are_the_senders_fault(steady: GatewayProcess, inputs: list[Any]) -> None:
    assert error_of(infer(steady, inputs), 400)


@pytest.mark.parametrize(
    "parameters",
    [{"data_class": 1}, {"data_class": "PHI"}, {"deadline_ms": "soon"}, {"deadline_ms": -1}, {"deadline_ms": 10**18}],
    ids=["number", "unknown", "text", "negative", "vast"],
)
def test_bad_parameters_are_the_senders_fault(steady: GatewayProcess, parameters: dict[str, Any]) -> None:
    sentence = error_of(infer(steady, [tensor(BLANK, [1, 64])], parameters=parameters), 400)
    assert next(iter(parameters)) in sentence


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"inputs": 1}', b"\xff"])
def test_a_malformed_body_is_the_senders_fault(steady: GatewayProcess, content: bytes) -> None:
    error_of(steady.http.post("/v2/models/digits/infer", content=content), 400)


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/v2/nowhere", 404),
        ("GET", "/v2/models/nonsense", 404),
        ("GET", "/v2/models/nonsense/ready", 404),
        ("GET", "/v2/models/digits/versions/2", 404),
        ("POST", "/v2/models/nonsense/infer", 404),
        ("POST", "/v2/models/digits/versions/2/infer", 404),
        ("POST", "/v2/models/a/b/c/infer", 404),
        ("GET", "/v2/models/digits/infer", 405),
        ("GET", "/v2/models/digits/config/more", 404),
        ("GET", "/v2/models/nonsense/config", 404),
        ("GET", "/v2/models/digits/versions/2/config", 404),
        ("GET", "/v2/models/nonsense/stats", 404),
        ("GET", "/v2/models/digits/versions/2/ready", 404),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/repository/models/digits/load", 404),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/health/live", 405),
    ],
)
def test_every_error_has_the_protocols_form(steady: GatewayProcess, verb: str, path: str, status: int) -> None:
    assert error_of(steady.http.request(verb, path), status)


def test_not_ready_is_said_as_both_clients_understand(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(cloud_only(policy_text(NOWHERE)))
    with oip.InferenceServerClient(address(gateway)) as client:
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("digits")
        with pytest.raises(InferenceServerException, match="digits: "):
            client.infer("digits", [json_input("pixels", np.zeros((1, 64), np.float32))])
    for path in ("/v2/health/ready", "/v2/models/digits/ready"):
        error_of(gateway.http.get(path), 503)
