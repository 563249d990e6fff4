"""The Open Inference Protocol in JSON: flat and nested data, versions, requested outputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.codec import oip
from backends.oip import datatype
from router.engine import Engine
from router.errors import InvalidField, InvalidTensor, MalformedBody, RouterError, UnknownModel
from router.model import DTYPES, TensorSpec
from router.types import InferenceRequest, InferenceResponse
from tests.unit.app.codec.front import is_the_callers_fault, response
from tests.unit.app.codec.test_json_tensors import as_json, tensors

ARRIVED = 50.0
IN_JSON = [dtype for dtype in DTYPES if dtype != "bfloat16"]
X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


def decode(
    engine: Engine, body: Any, model: str = "one", version: str | None = None, **headers: str
) -> tuple[InferenceRequest, oip.Wanted]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return oip.decode(content, named, b"", model, version, engine, ARRIVED)


def refused(engine: Engine, body: Any, model: str = "one", version: str | None = None, **headers: str) -> RouterError:
    with pytest.raises(RouterError) as caught:
        decode(engine, body, model, version, **headers)
    assert is_the_callers_fault(caught.value)
    return caught.value


def written(answer: InferenceResponse, wanted: oip.Wanted) -> Any:
    """The document of an answer that is JSON and nothing else."""
    content, headers = oip.encode(answer, wanted)
    assert headers == ((b"content-type", b"application/json"),)
    return json.loads(content)


@pytest.mark.parametrize("dtype", IN_JSON)
@given(st.data())
def test_flat_and_nested_data_mean_the_same(engine: Engine, dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    for written in (as_json(tensor), as_json(tensor.reshape(-1))):
        given_input = {"name": "x", "shape": list(tensor.shape), "datatype": datatype(dtype), "data": written}
        request, _ = decode(engine, {"inputs": [given_input]}, f"{dtype}-{tensor.ndim}")
        assert isinstance(request.payload, dict)
        assert request.payload["x"].dtype == tensor.dtype
        assert request.payload["x"].shape == tensor.shape
        assert request.payload["x"].tolist() == tensor.tolist()


@pytest.mark.parametrize("dtype", IN_JSON)
@given(st.data())
def test_what_is_written_reads_back(engine: Engine, dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    spec = TensorSpec(dtype, (-1,) * tensor.ndim)
    (output,) = written(response({"x": tensor}, {"x": spec}), {"x": False})["outputs"]
    assert output["datatype"] == datatype(dtype)
    request, _ = decode(engine, {"inputs": [output]}, f"{dtype}-{tensor.ndim}")
    assert isinstance(request.payload, dict)
    assert request.payload["x"].tolist() == tensor.tolist()


def test_facts_travel_in_parameters_or_headers(engine: Engine) -> None:
    body = {"id": "r1", "inputs": [X], "parameters": {"data_class": "phi", "deadline_ms": 100, "other": "kept"}}
    request, _ = decode(engine, body)
    assert (request.id, request.data_class) == ("r1", "phi")
    assert request.deadline == pytest.approx(ARRIVED + 0.1)
    assert request.parameters["other"] == "kept"
    request, _ = decode(engine, {"id": "", "inputs": [X]}, x_data_class="phi", x_deadline_ms="100", x_request_id="r2")
    assert (request.id, request.data_class) == ("r2", "phi")
    assert request.deadline == pytest.approx(ARRIVED + 0.1)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"data_class": 5}, "parameters.data_class"),
        ({"data_class": "phl"}, "data_class"),
        ({"deadline_ms": "5"}, "parameters.deadline_ms"),
        ({"deadline_ms": True}, "parameters.deadline_ms"),
        ({"deadline_ms": -5}, "deadline_ms"),
        ({"deadline_ms": 10**18}, "deadline_ms"),
    ],
)
def test_facts_that_cannot_be_accepted_are_named(engine: Engine, parameters: dict[str, Any], field: str) -> None:
    error = refused(engine, {"inputs": [X], "parameters": parameters})
    assert (type(error), error.field) == (InvalidField, field)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"datatype": "FP64"}, "inputs.x"),
        ({"datatype": "float32"}, "inputs.x"),
        ({"datatype": "BYTES"}, "inputs.x"),
        ({"name": "y"}, "inputs.y"),
        ({"shape": [2, 1]}, "inputs.x"),
        ({"shape": [2]}, "inputs.x"),
        ({"shape": [1, 3]}, "inputs.x"),
        ({"shape": [1, -2]}, "inputs.x.shape"),
        ({"shape": [0, 2], "data": []}, "inputs.x"),
        ({"shape": [0, 1 << 70], "data": []}, "inputs.x"),
        ({"shape": [0, 1 << 62, 1 << 62], "data": []}, "inputs.x"),
        ({"shape": [1 << 37, 2]}, "inputs.x"),
        ({"shape": [1] * 17}, "inputs.x.shape"),
        ({"data": [[1], [2]]}, "inputs.x"),
        ({"data": [[1, 2], [3]]}, "inputs.x"),
        ({"data": [1, True]}, "inputs.x"),
        ({"data": [1, "2"]}, "inputs.x"),
        ({"data": [1, None]}, "inputs.x"),
        ({"data": [1, 1e300]}, "inputs.x"),
        ({"data": "AAAA"}, "inputs.x"),
        ({"data": None}, "inputs.x"),
    ],
)
def test_an_input_that_is_not_as_it_says_is_refused(engine: Engine, change: dict[str, Any], field: str) -> None:
    error = refused(engine, {"inputs": [X | change]})
    assert isinstance(error, InvalidTensor)
    assert error.field is not None
    assert error.field.startswith(field)


def test_bfloat16_has_no_form_in_json(engine: Engine) -> None:
    error = refused(engine, {"inputs": [X | {"datatype": "BF16"}]}, "bfloat16-2")
    assert "send it as binary data" in error.detail


def test_data_is_not_optional(engine: Engine) -> None:
    assert isinstance(refused(engine, {"inputs": [{k: v for k, v in X.items() if k != "data"}]}), InvalidTensor)


def test_an_input_given_twice_is_refused(engine: Engine) -> None:
    error = refused(engine, {"inputs": [X, X]})
    assert (type(error), error.field) == (InvalidField, "inputs")


def test_a_missing_input_is_named(engine: Engine) -> None:
    assert refused(engine, {"inputs": []}).field == "inputs.x"


def test_the_outputs_that_are_wanted_are_given_in_that_order(engine: Engine) -> None:
    _, wanted = decode(engine, {"inputs": [X], "outputs": [{"name": "y"}]})
    assert list(wanted) == ["y"]
    assert refused(engine, {"inputs": [X], "outputs": [{"name": "z"}]}).field == "outputs"
    outputs = {name: np.zeros(1, np.int64) for name in "abc"}
    answer = response(outputs, {name: TensorSpec("int64", (-1,)) for name in "abc"})
    assert [output["name"] for output in written(answer, {"c": False, "a": False})["outputs"]] == ["c", "a"]
    assert [output["name"] for output in written(answer, dict.fromkeys("abc", False))["outputs"]] == ["a", "b", "c"]


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"\xff", b'{"inputs": 5}', b'{"inputs":' + b"[" * 100_000])
def test_what_is_no_body_is_malformed(engine: Engine, body: bytes) -> None:
    assert isinstance(refused(engine, body), MalformedBody)


def test_versions(engine: Engine) -> None:
    assert decode(engine, {"inputs": [X]}, version="1")[0].model == "one"
    assert refused(engine, {"inputs": [X]}, version="2").field == "version"
    assert isinstance(refused(engine, {"inputs": [X]}, model="none"), UnknownModel)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/v2/models/m/infer", ("m", None)),
        ("/v2/models/m/infer/", ("m", None)),
        ("/v2/models/m/versions/3/infer", ("m", "3")),
    ],
)
def test_the_path_names_model_and_version(path: str, named: tuple[str, str | None]) -> None:
    assert oip.named_in(path) == named


@pytest.mark.parametrize("path", ["/v2/models/a/b/infer", "/v2/models/m/version/3/infer", "/v2/models/a/b/c/d/infer"])
def test_another_path_names_none(path: str) -> None:
    with pytest.raises(UnknownModel):
        oip.named_in(path)


def test_an_answer_is_written_flat_with_nan_as_null() -> None:
    outputs = {"y": np.array([[1.0, np.nan], [np.inf, 2.0]], np.float32)}
    specs = {"y": TensorSpec("float32", (-1, 2))}
    document = written(response(outputs, specs, degraded=True), {"y": False})
    assert document["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1.0, None, None, 2.0]}]
    assert (document["model_name"], document["model_version"], document["id"]) == ("m", "3", "r1")
    assert document["parameters"] == {
        "backend": "edge",
        "policy": "p",
        "variant": "v1",
        "degraded": True,
        "latency_ms": 12.346,
        "cost_usd": 0.0,
        "bytes_out": 0,
        "reason": "because",
        "attempts": "",
    }
