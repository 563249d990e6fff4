"""Unmodified tritonclients as they come: binary tensors both ways, compression, and what load generators ask for."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as oip
import tritonclient.http.aio as oip_aio
from tritonclient.utils import InferenceServerException

from tests.gateway_process import GatewayProcess
from tests.integration.scenario import BLANK, accuracy

Holdout = tuple[np.ndarray, np.ndarray]
ROWS = 60
CODINGS = [None, "gzip", "deflate"]


@pytest.fixture
def client(steady: GatewayProcess) -> Iterator[oip.InferenceServerClient]:
    with oip.InferenceServerClient(address(steady), network_timeout=20.0) as connection:
        yield connection


def address(gateway: GatewayProcess) -> str:
    return gateway.url.removeprefix("http://")


def binary_input(name: str, array: np.ndarray, module: Any = oip) -> Any:
    tensor = module.InferInput(name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


@pytest.mark.parametrize(("data_class", "side"), [("phi", "edge"), ("unclassified", "cloud")])
@pytest.mark.parametrize("request_coding", CODINGS)
@pytest.mark.parametrize("response_coding", CODINGS)
def test_digits_are_as_right_as_when_they_were_made(
    client: oip.InferenceServerClient,
    holdout: Holdout,
    data_class: str,
    side: str,
    request_coding: str | None,
    response_coding: str | None,
) -> None:
    pixels, labels = holdout
    right = 0
    for start in range(0, len(labels), ROWS):
        answer = client.infer(
            "digits",
            [binary_input("pixels", pixels[start : start + ROWS])],
            request_compression_algorithm=request_coding,
            response_compression_algorithm=response_coding,
            parameters={"data_class": data_class, "deadline_ms": 10000},
        )
        document = answer.get_response()
        assert all("binary_data_size" in output["parameters"] for output in document["outputs"])
        assert document["parameters"]["backend"] == side
        assert answer.as_numpy("probabilities").shape == (ROWS, 10)
        right += int((answer.as_numpy("label") == labels[start : start + ROWS]).sum())
    assert right == accuracy("digits", side)


@pytest.mark.parametrize("coding", CODINGS)
async def test_the_asyncio_client_is_served_alike(steady: GatewayProcess, holdout: Holdout, coding: str | None) -> None:
    pixels, labels = holdout
    async with oip_aio.InferenceServerClient(address(steady)) as client:
        answer = await client.infer(
            "digits",
            [binary_input("pixels", pixels[:ROWS], oip_aio)],
            headers={"X-Data-Class": "phi"},
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        assert answer.get_response()["outputs"][0]["parameters"] == {"binary_data_size": ROWS * 8}
        assert int((answer.as_numpy("label") == labels[:ROWS]).sum()) > ROWS * 0.9
        assert (await client.get_model_config("digits"))["name"] == "digits"
        assert (await client.get_inference_statistics("digits"))["model_stats"][0]["name"] == "digits"
        assert [model["name"] for model in await client.get_model_repository_index()] == ["digits", "embed"]


def test_each_output_comes_as_it_was_asked_for(client: oip.InferenceServerClient, holdout: Holdout) -> None:
    for label, probabilities in ((True, False), (False, True), (True, True), (False, False)):
        outputs = [
            oip.InferRequestedOutput("probabilities", binary_data=probabilities),
            oip.InferRequestedOutput("label", binary_data=label),
        ]
        answer = client.infer("digits", [binary_input("pixels", holdout[0][:2])], outputs=outputs)
        assert ["data" in output for output in answer.get_response()["outputs"]] == [not probabilities, not label]
        assert answer.as_numpy("label").shape == (2,)
        assert answer.as_numpy("probabilities").shape == (2, 10)


def test_the_route_comes_back_in_scalars(client: oip.InferenceServerClient) -> None:
    blank = binary_input("pixels", np.zeros((1, 64), np.float32))
    parameters = client.infer("digits", [blank], headers={"X-Data-Class": "phi"}).get_response()["parameters"]
    assert parameters.pop("latency_ms") > 0
    assert parameters.pop("cost_usd") > 0
    assert parameters.pop("reason")
    assert parameters == {
        "backend": "edge",
        "policy": "kiosk",
        "variant": "digits-edge.onnx",
        "degraded": False,
        "bytes_out": 0,
        "attempts": "edge: answered",
    }


def test_errors_reach_the_client_in_our_words(client: oip.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"inputs.pixels has shape \[1, 63\]; it must be \[-1, 64\]"):
        client.infer("digits", [binary_input("pixels", np.zeros((1, 63), np.float32))])
    blank = binary_input("pixels", np.zeros((1, 64), np.float32))
    with pytest.raises(InferenceServerException, match="classification, which is not supported"):
        client.infer("digits", [blank], outputs=[oip.InferRequestedOutput("label", class_count=3)])
    shared = oip.InferInput("pixels", [1, 64], "FP32")
    shared.set_shared_memory("region", 256)
    with pytest.raises(InferenceServerException, match="shared memory, which is not supported"):
        client.infer("digits", [shared])


def test_what_the_server_says_of_itself(client: oip.InferenceServerClient) -> None:
    metadata = client.get_server_metadata()
    assert metadata["name"] == "hybrid-router"
    assert {"binary_tensor_data", "parameters", "model_configuration", "statistics"} == set(metadata["extensions"])
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "2")


def test_the_configuration_is_what_load_generators_read(client: oip.InferenceServerClient) -> None:
    config = client.get_model_config("digits", "1")
    assert config == client.get_model_config("digits")
    assert config["max_batch_size"] > 0
    assert [(tensor["name"], tensor["data_type"], tensor["dims"]) for tensor in config["input"]] == [
        ("pixels", "TYPE_FP32", [64])
    ]
    assert [(tensor["name"], tensor["data_type"], tensor["dims"]) for tensor in config["output"]] == [
        ("label", "TYPE_INT64", []),
        ("probabilities", "TYPE_FP32", [10]),
    ]
    assert config["model_transaction_policy"] == {"decoupled": False}
    with pytest.raises(InferenceServerException, match="There is no model 'nonsense'"):
        client.get_model_config("nonsense")


def test_statistics_count_what_was_asked(client: oip.InferenceServerClient) -> None:
    def stats() -> dict[str, Any]:
        (found,) = client.get_inference_statistics("digits", "1")["model_stats"]
        return dict(found)

    before = stats()
    for _ in range(3):
        client.infer("digits", [binary_input("pixels", np.zeros((5, 64), np.float32))])
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 15
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["last_inference"] > before["last_inference"] >= 0
    for phase in ("success", "queue", "compute_infer"):
        assert after["inference_stats"][phase]["count"] - before["inference_stats"][phase]["count"] == 3
    took_ns = after["inference_stats"]["success"]["ns"] - before["inference_stats"]["success"]["ns"]
    assert took_ns >= after["inference_stats"]["compute_infer"]["ns"] - before["inference_stats"]["compute_infer"]["ns"]
    assert after["inference_stats"]["cache_hit"] == {"count": 0, "ns": 0}
    assert [found["name"] for found in client.get_inference_statistics()["model_stats"]] == ["digits", "embed"]


def test_the_index_lists_the_models(client: oip.InferenceServerClient, steady: GatewayProcess) -> None:
    ready = {"version": "1", "state": "READY", "reason": ""}
    assert client.get_model_repository_index() == [{"name": "digits", **ready}, {"name": "embed", **ready}]
    for content, status in ((b'{"ready": true}', 200), (b"{", 400), (b"[]", 400), (b" " * 5000, 413)):
        assert steady.http.post("/v2/repository/index", content=content).status_code == status


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/stats",
        *(f"/v2/models/digits{version}{what}" for version in ("", "/versions/1") for what in ("", "/config", "/ready")),
    ],
)
def test_a_slash_behind_a_path_changes_nothing(steady: GatewayProcess, path: str) -> None:
    plain, slashed = steady.http.get(path), steady.http.get(f"{path}/")
    assert plain.status_code == slashed.status_code == 200
    assert plain.json() == slashed.json()


@pytest.mark.parametrize("path", ["/v2/models/digits/infer", "/v2/models/digits/versions/1/infer"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_slash_behind_inference_changes_nothing(steady: GatewayProcess, path: str, slash: str) -> None:
    body = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": BLANK}]}
    assert steady.http.post(path + slash, json=body).json()["outputs"][0]["name"] == "label"


def test_compressed_bodies_are_bounded_by_what_comes_out(steady: GatewayProcess) -> None:
    fits = json.dumps({"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": BLANK}]}).encode()
    path = "/v2/models/digits/infer"

    def ask(content: bytes, coding: str) -> tuple[int, str]:
        response = steady.http.post(path, content=content, headers={"Content-Encoding": coding})
        return response.status_code, response.json().get("error", "")

    assert ask(gzip.compress(fits), "gzip") == (200, "")
    assert ask(zlib.compress(fits), "deflate") == (200, "")
    assert ask(gzip.compress(fits + b" " * (4 << 20)), "gzip")[0] == 413
    bomb = gzip.compress(bytes(1 << 30), 9)
    status, sentence = ask(bomb, "gzip")
    assert (status, "inflates to more than 4194304 bytes" in sentence) == (413, True)
    for content in (gzip.compress(fits)[:-4], gzip.compress(fits) + b"rubbish", b"rubbish", b""):
        assert ask(content, "gzip")[0] == 400
    assert ask(fits, "br")[0] == 415
    native = json.dumps({"model": "digits", "inputs": {"pixels": BLANK}}).encode()
    response = steady.http.post("/infer", content=gzip.compress(native), headers={"Content-Encoding": "gzip"})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("asked", "coding"), [("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate, br", None)])
def test_answers_are_compressed_for_who_asks_for_one_coding(
    steady: GatewayProcess, asked: str, coding: str | None
) -> None:
    body = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": BLANK}]}
    response = steady.http.post("/v2/models/digits/infer", json=body, headers={"Accept-Encoding": asked})
    assert response.headers.get("content-encoding") == coding
    assert response.json()["outputs"][0]["name"] == "label"
