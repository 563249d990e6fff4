"""The body of `/infer`: what is let in, what is refused and with which field, and how answers are written."""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.codec import native
from app.codec.problem import oip_error, problem
from router.engine import Engine
from router.errors import (
    InvalidField,
    InvalidTensor,
    MalformedBody,
    Outcome,
    RouterError,
    UnknownModel,
    UnsupportedMediaType,
)
from router.model import Tensor, TensorSpec
from router.types import AttemptRecord, EncodedImage, InferenceRequest, nbytes
from tests.unit.app.codec.front import is_the_callers_fault, response
from tests.unit.app.codec.test_json_tensors import NUMERIC, as_json, tensors

ARRIVED = 50.0
SEVEN = (Path(__file__).parents[4] / "deploy/models/seven.png").read_bytes()
GOOD = {"model": "one", "inputs": {"x": [[1, 2]]}}


def decode(engine: Engine, body: Any, query: bytes = b"", **headers: str) -> InferenceRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return native.decode(raw, named, query, engine, ARRIVED)


def refused(engine: Engine, body: Any, query: bytes = b"", **headers: str) -> RouterError:
    with pytest.raises(RouterError) as caught:
        decode(engine, body, query, **headers)
    assert is_the_callers_fault(caught.value)
    return caught.value


def raw(tensor: Tensor, **changes: Any) -> dict[str, Any]:
    """A tensor as base64."""
    content = base64.b64encode(tensor.tobytes()).decode()
    return {"dtype": tensor.dtype.name, "shape": list(tensor.shape), "base64": content} | changes


def test_a_plain_request(engine: Engine) -> None:
    request = decode(engine, GOOD)
    assert isinstance(request.payload, dict)
    assert request.payload["x"].tolist() == [[1.0, 2.0]]
    assert request.payload["x"].dtype == np.float32
    assert (request.model, request.data_class, request.deadline, request.arrived) == (
        "one",
        "unclassified",
        None,
        ARRIVED,
    )
    assert request.payload_bytes == 8
    assert request.id


def test_everything_that_can_be_said(engine: Engine) -> None:
    facts = {"id": "r1", "data_class": "phi", "deadline_ms": 250, "parameters": {"a": 1, "b": "x", "c": True, "d": 0.5}}
    request = decode(engine, GOOD | facts)
    assert (request.id, request.data_class, request.deadline) == ("r1", "phi", ARRIVED + 0.25)
    assert request.parameters == {"a": 1, "b": "x", "c": True, "d": 0.5}


@pytest.mark.parametrize("dtype", NUMERIC)
@given(st.data())
def test_lists_and_base64_mean_the_same(engine: Engine, dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    model = f"{dtype}-{tensor.ndim}"
    for written in (as_json(tensor), raw(tensor)):
        request = decode(engine, {"model": model, "inputs": {"x": written}})
        assert isinstance(request.payload, dict)
        np.testing.assert_array_equal(request.payload["x"], tensor)
        assert request.payload["x"].dtype == tensor.dtype
        assert request.payload_bytes == nbytes({"x": tensor})


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        ({"model": "oen"}, UnknownModel, "model"),
        ({"model": 1}, MalformedBody, "model"),
        ({"model": None}, MalformedBody, "model"),
        ({"inputs": []}, MalformedBody, "inputs"),
        ({"inputs": {}}, InvalidTensor, "inputs.x"),
        ({"inputs": {"y": [[1, 2]]}}, InvalidTensor, "inputs.y"),
        ({"inputs": {"x": [[1, 2]], "y": [1]}}, InvalidTensor, "inputs.y"),
        ({"inputs": {"x": None}}, InvalidTensor, "inputs.x"),
        ({"inputs": {"x": [1, 2]}}, InvalidTensor, "inputs.x"),
        ({"inputs": {"x": [[1, 2, 3]]}}, InvalidTensor, "inputs.x"),
        ({"inputs": {"x": []}}, InvalidTensor, "inputs.x"),
        ({"inputs": {"x": [[1, True]]}}, InvalidTensor, "inputs.x"),
        ({"inputs": {"x": [[1, "1"]]}}, InvalidTensor, "inputs.x"),
        ({"inputs": {"x": [[1, 1e300]]}}, InvalidTensor, "inputs.x"),
        ({"colour": "red"}, MalformedBody, "colour"),
        ({"deadline_ms": "5"}, MalformedBody, "deadline_ms"),
        ({"deadline_ms": True}, MalformedBody, "deadline_ms"),
        ({"deadline_ms": 0}, InvalidField, "deadline_ms"),
        ({"deadline_ms": -1}, InvalidField, "deadline_ms"),
        ({"deadline_ms": 600_001}, InvalidField, "deadline_ms"),
        ({"deadline_ms": 10**400}, MalformedBody, "deadline_ms"),
        ({"data_class": "phl"}, InvalidField, "data_class"),
        ({"data_class": ""}, InvalidField, "data_class"),
        ({"id": ""}, InvalidField, "id"),
        ({"id": "x" * 129}, InvalidField, "id"),
        ({"id": "a\nb"}, InvalidField, "id"),
        ({"id": 5}, MalformedBody, "id"),
        ({"parameters": {"a": None}}, MalformedBody, "parameters[...]"),
    ],
)
def test_what_cannot_be_accepted_is_named(
    engine: Engine, change: dict[str, Any], kind: type[RouterError], field: str
) -> None:
    error = refused(engine, GOOD | change)
    assert (type(error), error.field) == (kind, field)


@pytest.mark.parametrize("missing", ["model", "inputs"])
def test_a_missing_field_is_named(engine: Engine, missing: str) -> None:
    error = refused(engine, {name: value for name, value in GOOD.items() if name != missing})
    assert (type(error), error.field) == (MalformedBody, missing)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"\xff", b'{"model": "one"', b'{"a":' * 100_000, b"[" * 100_000, b"\xef\xbb\xbf{}"],
)
def test_what_is_no_body_is_malformed(engine: Engine, body: bytes) -> None:
    error = refused(engine, body)
    assert (type(error), error.field) == (MalformedBody, "a" if body.startswith(b'{"a"') else None)


def test_deep_nesting_is_refused(engine: Engine) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    refused(engine, b'{"model": "one", "inputs": {"x": ' + deep + b"}}")
    refused(engine, b'{"model": "one", "inputs": {"x": {"dtype": ' + deep + b"}}}")


known_keys = st.sampled_from(["model", "inputs", "x", "dtype", "shape", "base64"])
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | known_keys, inner),
    max_leaves=12,
)


@given(any_json)
def test_any_json_is_a_request_or_refused(engine: Engine, body: Any) -> None:
    for given_body in (body, {"model": "one", "inputs": body}, {"model": "one", "inputs": {"x": body}}):
        try:
            decode(engine, given_body)
        except RouterError as refusal:
            error = refusal
        else:
            continue
        assert is_the_callers_fault(error)
        for describe in (problem, oip_error):
            assert json.loads(describe(error).body)


VALID = raw(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float64"},
        {"dtype": "string"},
        {"dtype": "nonsense"},
        {"dtype": 5},
        {"shape": [2, 1]},
        {"shape": [2]},
        {"shape": [1, True]},
        {"shape": [1.0, 2]},
        {"shape": "12"},
        {"shape": [-1, 2]},
        {"shape": [0, 1 << 70], "base64": ""},
        {"base64": "AAAA"},
        {"base64": "not base64!"},
        {"base64": None},
        {"more": 1},
        {"shape": [1 << 20, 1 << 18]},
    ],
)
def test_a_raw_tensor_that_is_not_as_it_says_is_refused(engine: Engine, change: dict[str, Any]) -> None:
    error = refused(engine, GOOD | {"inputs": {"x": VALID | change}})
    assert isinstance(error, InvalidTensor)
    assert error.field is not None
    assert error.field.startswith("inputs.x")


def test_a_claimed_terabyte_is_refused_before_anything_is_allocated(engine: Engine) -> None:
    body = GOOD | {"inputs": {"x": VALID | {"shape": [1 << 37, 2]}}}
    refused(engine, body)
    tracemalloc.start()
    try:
        refused(engine, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_slip_in_as_base64(engine: Engine, value: float) -> None:
    error = refused(engine, GOOD | {"inputs": {"x": raw(np.array([[1, value]], np.float32))}})
    assert "finite" in error.detail


def test_inputs_that_disagree_on_the_rows_are_refused(engine: Engine) -> None:
    decode(engine, {"model": "two", "inputs": {"a": [1], "b": [[True, False]]}})
    error = refused(engine, {"model": "two", "inputs": {"a": [1, 2], "b": [[True, False]]}})
    assert "rows" in error.detail


def test_an_image_is_taken_as_it_is(engine: Engine) -> None:
    query = b"model=one&data_class=phi&deadline_ms=100&id=r9"
    request = decode(engine, SEVEN, query, content_type="Image/PNG; charset=x")
    assert request.payload == EncodedImage(SEVEN, "image/png")
    assert (request.id, request.data_class) == ("r9", "phi")
    assert request.deadline == pytest.approx(ARRIVED + 0.1)
    assert request.payload_bytes == len(SEVEN)


@pytest.mark.parametrize(
    ("body", "query", "media_type", "kind"),
    [
        (SEVEN, b"", "image/png", InvalidField),
        (SEVEN, b"model=one&colour=red", "image/png", InvalidField),
        (SEVEN, b"model=one&deadline_ms=soon", "image/png", InvalidField),
        (SEVEN, b"model=one&deadline_ms=nan", "image/png", InvalidField),
        (SEVEN, b"model=one&deadline_ms=1_0", "image/png", InvalidField),
        (SEVEN, b"model=one&deadline_ms=%D9%A1", "image/png", InvalidField),
        (SEVEN, b"model=none", "image/png", UnknownModel),
        (SEVEN, b"model=two", "image/png", UnsupportedMediaType),
        (SEVEN, b"model=one", "image/tiff", UnsupportedMediaType),
        (SEVEN, b"model=one", "text/html", UnsupportedMediaType),
        (SEVEN, b"model=one", "", UnsupportedMediaType),
        (b"", b"model=one", "image/png", MalformedBody),
    ],
)
def test_an_image_that_cannot_be_accepted_is_refused(
    engine: Engine, body: bytes, query: bytes, media_type: str, kind: type[RouterError]
) -> None:
    assert isinstance(refused(engine, body, query, content_type=media_type), kind)


def test_an_answer_is_written_with_its_route() -> None:
    record = AttemptRecord("edge", Outcome.DROPPED, "backend-failed", 0.001, 0.002, 0.003, 0.004, "s", 10, 9, 0.5)
    outputs = {"y": np.array([[1.5, np.nan], [np.inf, 2.0]], np.float32), "t": np.array([b"seven"], dtype=object)}
    specs = {"y": TensorSpec("float32", (-1, 2)), "t": TensorSpec("string", (-1,))}
    written = json.loads(native.encode(response(outputs, specs, attempts=[record])))
    assert written["outputs"] == {"y": [[1.5, None], [None, 2.0]], "t": ["seven"]}
    assert (written["id"], written["model"]) == ("r1", "m")
    route = written["route"]
    assert (route["backend"], route["latency_ms"], route["cost_usd"], route["bytes_out"]) == ("edge", 12.346, 0.5, 9)
    assert route["attempts"] == [
        {"backend": "edge", "outcome": "dropped", "error": "backend-failed"}
        | {"queue_ms": 1.0, "network_ms": 2.0, "compute_ms": 3.0, "stages_ms": 4.0}
    ]
