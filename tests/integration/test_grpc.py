"""The gRPC front as unmodified tritonclients speak to it, streams included."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as oip
import tritonclient.grpc.aio as oip_aio
from tritonclient.utils import InferenceServerException

from backends.oip import datatype
from router.model import DTYPES
from tests.gateway_process import GatewayProcess
from tests.integration.identity_model import ON_DEVICE, WIDTH, identity_policy, save_identity_model
from tests.integration.scenario import accuracy

Holdout = tuple[np.ndarray, np.ndarray]
ROWS = 60


@pytest.fixture
def client(steady: GatewayProcess) -> Iterator[oip.InferenceServerClient]:
    with oip.InferenceServerClient(steady.grpc) as connection:
        yield connection


def tensor(array: np.ndarray, name: str = "pixels", kind: str = "FP32") -> oip.InferInput:
    made = oip.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


def test_live_ready_and_metadata(client: oip.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("embed", "1")
    assert not client.is_model_ready("nonsense")
    assert not client.is_model_ready("digits", "2")
    assert client.get_model_metadata("digits") == client.get_model_metadata("digits", "1")
    assert client.get_model_metadata("digits", as_json=True) == {
        "name": "digits",
        "versions": ["1"],
        "platform": "hybrid-router",
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": ["-1", "64"]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": ["-1"]},
            {"name": "probabilities", "datatype": "FP32", "shape": ["-1", "10"]},
        ],
    }


def test_what_load_generators_ask_for(client: oip.InferenceServerClient, holdout: Holdout) -> None:
    server = client.get_server_metadata()
    assert server.name == "hybrid-router"
    assert {"statistics", "model_configuration"} <= set(server.extensions)
    config = client.get_model_config("digits").config
    assert (config.name, config.max_batch_size > 1, config.model_transaction_policy.decoupled) == (
        "digits",
        True,
        False,
    )
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [("pixels", [64])]
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("label", []), ("probabilities", [10])]
    index = {model.name: model for model in client.get_model_repository_index().models}
    assert {"digits", "embed"} <= index.keys()
    assert (index["digits"].version, index["digits"].state) == ("1", "READY")
    (before,) = client.get_inference_statistics("digits").model_stats
    client.infer("digits", [tensor(holdout[0][:3])])
    (after,) = client.get_inference_statistics("digits", "1").model_stats
    assert after.inference_count == before.inference_count + 3
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert {model.name for model in client.get_inference_statistics().model_stats} >= {"digits", "embed"}


@pytest.mark.parametrize(("data_class", "side"), [("phi", "edge"), ("unclassified", "cloud")])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_digits_are_as_right_as_when_they_were_made(
    client: oip.InferenceServerClient, holdout: Holdout, data_class: str, side: str, compression: str | None
) -> None:
    pixels, labels = holdout
    right = 0
    for start in range(0, len(labels), ROWS):
        answer = client.infer(
            "digits",
            [tensor(pixels[start : start + ROWS])],
            outputs=[oip.InferRequestedOutput("label"), oip.InferRequestedOutput("probabilities")],
            parameters={"data_class": data_class, "deadline_ms": 10000},
            compression_algorithm=compression,
        )
        assert answer.get_response().parameters["backend"].string_param == side
        assert answer.as_numpy("probabilities").shape == (ROWS, 10)
        right += int((answer.as_numpy("label") == labels[start : start + ROWS]).sum())
    assert right == accuracy("digits", side)


def test_facts_travel_in_metadata_too(client: oip.InferenceServerClient, holdout: Holdout) -> None:
    facts = {"x-data-class": "phi", "x-deadline-ms": "10000", "x-priority": "high", "x-request-id": "mine"}
    answer = client.infer("digits", [tensor(holdout[0][:1])], headers=facts)
    response = answer.get_response()
    assert response.id == "mine"
    assert response.parameters["backend"].string_param == "edge"
    assert not response.parameters["degraded"].bool_param
    assert response.parameters["attempts"].string_param == "edge: answered"
    assert response.parameters["latency_ms"].double_param > 0
    assert [output.name for output in response.outputs] == ["label", "probabilities"]


def test_only_the_outputs_that_are_asked_for(client: oip.InferenceServerClient, holdout: Holdout) -> None:
    answer = client.infer("digits", [tensor(holdout[0][:1])], outputs=[oip.InferRequestedOutput("label")])
    assert answer.as_numpy("probabilities") is None


async def test_the_asyncio_client_is_served_alike(steady: GatewayProcess, holdout: Holdout) -> None:
    pixels, labels = holdout
    async with oip_aio.InferenceServerClient(steady.grpc) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("digits")
        answer = await client.infer(
            "digits", [tensor(pixels[:ROWS])], priority=1, parameters={"data_class": "phi"}, request_id="mine"
        )
        assert answer.get_response().id == "mine"
        assert (answer.as_numpy("label") == labels[:ROWS]).mean() > 0.9


def test_every_dtype_comes_back_as_it_went(start_gateway: Callable[..., GatewayProcess], tmp_path: Path) -> None:
    file = tmp_path / "identity.onnx"
    save_identity_model(file)
    gateway = start_gateway(identity_policy(file), HYBRID_ROUTER_MODELS_DIR=str(tmp_path))
    sent = {
        dtype: np.array([[0, 1], [2, 3]]).astype(kind)
        for dtype, kind in DTYPES.items()
        if dtype in ON_DEVICE and dtype != "string"
    }
    sent["bool"] = np.array([[True, False], [False, True]])
    sent["float16"][0] = (np.inf, np.nan)
    sent["uint64"][0] = (2**64 - 1, 2**63)
    sent["string"] = np.array([[b"", b"caf\xc3\xa9"], [b"x" * 300, b"a"]], dtype=object)
    with oip.InferenceServerClient(gateway.grpc) as client:
        answer = client.infer("identity", [tensor(array, dtype, datatype(dtype)) for dtype, array in sent.items()])
    for dtype, array in sent.items():
        back = answer.as_numpy(f"{dtype}_out")
        assert (back.dtype, back.shape) == (DTYPES[dtype], (2, WIDTH))
        if dtype == "string":
            assert back.tolist() == array.tolist()
        else:
            np.testing.assert_array_equal(back, array)


class Stream:
    """A stream of the blocking client, and what its callback was told."""

    def __init__(self, client: oip.InferenceServerClient, **metadata: str) -> None:
        self._client = client
        self._told: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
        headers = {name.replace("_", "-"): value for name, value in metadata.items()}
        client.start_stream(lambda result, error: self._told.put((result, error)), headers=headers)

    def ask(self, array: np.ndarray, id: str, model: str = "digits", **parameters: Any) -> None:
        self._client.async_stream_infer(model, [tensor(array)], request_id=id, parameters=parameters)

    def next(self) -> tuple[Any, InferenceServerException | None]:
        return self._told.get(timeout=10)


def test_a_stream_is_answered_in_order_and_outlives_errors(client: oip.InferenceServerClient, holdout: Holdout) -> None:
    stream = Stream(client)
    for number in range(100):
        wrong = number % 10 == 9
        stream.ask(holdout[0][: 1 + number], str(number), "nonsense" if wrong else "digits", deadline_ms=10_000)
    for number in range(100):
        result, error = stream.next()
        if number % 10 == 9:
            assert error is not None
            assert "no model 'nonsense'" in error.message()
            continue
        assert error is None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param
        assert result.as_numpy("label").shape == (1 + number,)
    client.stop_stream()


def test_the_facts_of_a_stream_hold_for_each_request(client: oip.InferenceServerClient, holdout: Holdout) -> None:
    stream = Stream(client, x_data_class="phi", x_request_id="of the call, not of a request")
    stream.ask(holdout[0][:1], "first")
    stream.ask(holdout[0][:1], "second", data_class="unclassified")
    result, _ = stream.next()
    assert result.get_response().id == "first"
    assert result.get_response().parameters["backend"].string_param == "edge"
    _, error = stream.next()
    assert error is not None
    assert "data_class is given in a header and elsewhere" in error.message()
    client.stop_stream()


async def test_the_asyncio_client_streams_too(steady: GatewayProcess, holdout: Holdout) -> None:
    async def ask() -> AsyncIterator[dict[str, Any]]:
        for number in range(20):
            yield {"model_name": "digits", "inputs": [tensor(holdout[0][:1])], "request_id": str(number)}

    async with oip_aio.InferenceServerClient(steady.grpc) as client:
        ids = []
        async for result, error in client.stream_infer(ask()):
            assert error is None
            ids.append(result.get_response().id)
    assert ids == [str(number) for number in range(20)]
