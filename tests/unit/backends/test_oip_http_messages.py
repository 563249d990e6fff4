"""What is written to an Open Inference Protocol server, and what is made of whatever it answers."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backends.oip import datatype, encode_raw
from backends.oip_http_channel import Answer
from backends.oip_http_messages import (
    HEADER_LENGTH,
    Extensions,
    inference,
    read_extensions,
    read_max_rows,
    read_outputs,
    read_totals,
    refused,
)
from backends.oip_json import from_json, to_json
from backends.server import Totals
from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    Outcome,
    Overloaded,
)
from router.model import DTYPES, ModelSpec, Tensor, TensorSpec
from router.ports import Call
from router.types import Priority

SPEC = ModelSpec("m", "1", {"x": TensorSpec("float32", (-1, 2))}, {"y": TensorSpec("float32", (-1,))})
BINARY = Extensions(binary=True)
NUMERIC = [name for name in DTYPES if name != "string"]


def call(parameters: dict[str, object] | None = None, **facts: Any) -> Call:
    return Call({"x": np.ones((1, 2), np.float32)}, 8, 1, "r1", parameters or {}, **facts)


def sent(call_: Call, extensions: Extensions, seconds: float = 1.0) -> tuple[dict[str, Any], bytes, dict[str, str]]:
    """The JSON of a request, what follows it, and the headers."""
    body, headers = inference(call_, call_.payload, extensions, seconds)  # type: ignore[arg-type]
    length = int(headers.get(HEADER_LENGTH, len(body)))
    return orjson.loads(body[:length]), body[length:], headers


def answered(document: Any, raw: bytes = b"", *, binary: bool = False) -> Answer:
    text = orjson.dumps(document)
    return Answer(200, httpx.Headers({HEADER_LENGTH: str(len(text))} if binary else {}), text + raw)


def output(**changed: Any) -> dict[str, Any]:
    return {"name": "y", "shape": [1], "datatype": "FP32", "data": [0.5]} | changed


def raw_output(size: Any, **changed: Any) -> dict[str, Any]:
    return {"name": "y", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": size}} | changed


@pytest.mark.parametrize("dtype", [name for name in NUMERIC if name != "bfloat16"])
@given(data=st.data())
def test_numbers_come_back_from_json_as_they_went(dtype: str, data: st.DataObject) -> None:
    finite: dict[str, Any] = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else {}
    tensor = data.draw(arrays.arrays(DTYPES[dtype], arrays.array_shapes(max_dims=3, max_side=4), elements=finite))
    for form in (to_json(tensor, "x"), tensor.tolist()):
        text = orjson.dumps(form, option=orjson.OPT_SERIALIZE_NUMPY)
        back = from_json(text, dtype, tensor.shape, "x")
        np.testing.assert_array_equal(back, tensor)
        assert back.dtype == tensor.dtype


@given(st.lists(st.text(), min_size=1))
def test_texts_come_back_from_json_as_they_went(texts: list[str]) -> None:
    tensor = np.array([text.encode() for text in texts] + [None], dtype=object)[:-1]
    back = from_json(orjson.dumps(to_json(tensor, "x")), "string", (len(texts),), "x")
    assert back.tolist() == tensor.tolist()


@pytest.mark.parametrize("dtype", NUMERIC)
def test_a_raw_output_is_read_whatever_stands_before_it(dtype: str) -> None:
    spec = ModelSpec("m", "1", SPEC.inputs, {"y": TensorSpec(dtype, (-1, 2))})
    tensor = np.array([[0, 1], [1, 0]], DTYPES[dtype])
    before = raw_output(3, name="not asked for", datatype="UINT8", shape=[3])
    answer = answered(
        {"outputs": [before, raw_output(tensor.nbytes, datatype=datatype(dtype), shape=[2, 2])]},
        b"abc" + encode_raw(tensor),
        binary=True,
    )
    np.testing.assert_array_equal(read_outputs(answer, spec, "m")["y"], tensor)


@pytest.mark.parametrize("shape", [[1], [1, 1]])
def test_a_dimension_of_one_too_many_is_taken_off(shape: list[int]) -> None:
    assert read_outputs(answered({"outputs": [output(shape=shape)]}), SPEC, "m")["y"].shape == (1,)


def test_nulls_beside_the_outputs_and_for_numbers_that_json_lacks_are_understood() -> None:
    document = {"model_version": None, "parameters": None, "outputs": [output(parameters=None, data=[None])]}
    assert np.isnan(read_outputs(answered(document), SPEC, "m")["y"]).all()


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        "text",
        {"outputs": {}},
        {"outputs": []},
        {"outputs": [output(name="z")]},
        {"outputs": [output(datatype="FP64")]},
        {"outputs": [output(datatype="nonsense")]},
        {"outputs": [output(shape=[1, 2])]},
        {"outputs": [output(shape=[0], data=[])]},
        {"outputs": [output(shape=[-1])]},
        {"outputs": [output(shape=[2])]},
        {"outputs": [output(shape=[10**12])]},
        {"outputs": [output(shape=[])]},
        {"outputs": [output(data=[])]},
        {"outputs": [output(data=0.5)]},
        {"outputs": [output(data=["0.5"])]},
        {"outputs": [output(data=[True])]},
        {"outputs": [output(data=[[0.5], 1])]},
        {"outputs": [{"name": "y", "shape": [1], "datatype": "FP32"}]},
        {"outputs": [raw_output(4)]},
        {"outputs": [raw_output(-1)]},
        {"outputs": [raw_output("4")]},
        {"outputs": [raw_output(True)]},
    ],
)
def test_what_is_not_the_models_output_is_a_failure(document: Any) -> None:
    with pytest.raises(BackendFailed):
        read_outputs(answered(document), SPEC, "m")


@pytest.mark.parametrize("length", ["", "-1", "x", "99999", "1e1", "9" * 40])
def test_a_header_length_that_is_none_is_a_failure(length: str) -> None:
    body = orjson.dumps({"outputs": [output()]})
    with pytest.raises(BackendFailed):
        read_outputs(Answer(200, httpx.Headers({HEADER_LENGTH: length}), body), SPEC, "m")


@given(st.binary() | st.just(b"[" * 100_000), st.none() | st.integers(0, 200))
def test_rubbish_is_a_failure_and_nothing_else(body: bytes, length: int | None) -> None:
    headers = httpx.Headers({} if length is None else {HEADER_LENGTH: str(length)})
    with pytest.raises(BackendFailed):
        read_outputs(Answer(200, headers, body), SPEC, "m")
    assert isinstance(refused(Answer(400, headers, body), "m"), BackendError)
    assert read_max_rows(body) == 0
    assert read_extensions(body) == Extensions()


STATUSES = {
    302: BackendFailed,
    400: BackendRejectedInput,
    401: BackendUnavailable,
    403: BackendRejectedInput,
    404: BackendUnavailable,
    405: BackendFailed,
    408: BackendTimeout,
    413: BackendRejectedInput,
    415: BackendRejectedInput,
    422: BackendRejectedInput,
    429: Overloaded,
    500: BackendFailed,
    501: BackendFailed,
    502: BackendFailed,
    503: BackendUnavailable,
    504: BackendTimeout,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error": "first line\\nsecond line"}', "first line"),
        (b'{"detail": "so it is"}', "so it is"),
        (b'{"detail": [{"loc": []}]}', "loc"),
        (b"Internal Server Error", "Internal Server Error"),
        (b"", ""),
        (b"null", "HTTP"),
    ],
)
def test_every_status_has_its_word(status: int, kind: type[BackendError], body: bytes, says: str) -> None:
    error = refused(Answer(status, httpx.Headers(), body), "m")
    assert type(error) is kind
    assert says in error.detail
    assert "second line" not in error.detail


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_a_server_with_too_much_to_do_is_not_ill_and_says_when_to_ask_again(header: str, seconds: float | None) -> None:
    error = refused(Answer(429, httpx.Headers({"Retry-After": header}), b""), "m")
    assert error.retry_after_s == seconds
    assert error.outcome is Outcome.IGNORE


def test_the_data_class_and_the_other_facts_go_along() -> None:
    _, _, headers = sent(call(data_class="phi", priority=Priority.HIGH), Extensions(), 0.25)
    assert (headers["x-data-class"], headers["x-priority"], headers["x-deadline-ms"]) == ("phi", "high", "250.000")


def test_data_of_no_class_names_none() -> None:
    assert "x-data-class" not in sent(call(), Extensions())[2]


@pytest.mark.parametrize(("seconds", "says"), [(0.0, "1.000"), (1e6, "600000.000")])
def test_a_deadline_is_one_that_a_gateway_takes(seconds: float, says: str) -> None:
    assert sent(call(), Extensions(), seconds)[2]["x-deadline-ms"] == says


def test_tensors_are_raw_where_the_server_takes_that() -> None:
    document, raw, headers = sent(call({"top_k": 3}), BINARY)
    assert document == {
        "id": "r1",
        "parameters": {"top_k": 3, "binary_data_output": True},
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
    }
    assert raw == np.ones(2, np.float32).tobytes()
    assert headers["content-type"] == "application/octet-stream"


def test_tensors_are_json_elsewhere_and_no_raw_answer_is_asked_for() -> None:
    document, raw, headers = sent(call({"binary_data_output": True, "voice": "low"}), Extensions())
    assert document["parameters"] == {"voice": "low"}
    assert document["inputs"] == [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}]
    assert raw == b""
    assert headers["content-type"] == "application/json"


def test_the_time_in_the_queue_is_bounded_where_the_server_can_do_that() -> None:
    assert "timeout" not in sent(call(), Extensions())[0]["parameters"]
    assert sent(call({"timeout": 1}), Extensions(timeout=True), 0.5)[0]["parameters"]["timeout"] == 500_000


@pytest.mark.parametrize(
    "tensor",
    [np.array([np.nan, 1], np.float32), np.array([np.inf]), np.array([b"\xff"], object), np.array([1j])],
    ids=["nan", "infinity", "bytes", "complex"],
)
def test_what_json_cannot_hold_is_rejected_rather_than_changed(tensor: Tensor) -> None:
    with pytest.raises(BackendRejectedInput):
        to_json(tensor, "x")


def test_what_a_server_can_do_is_read_from_its_metadata() -> None:
    body = b'{"name": "triton", "extensions": ["binary_tensor_data", "schedule_policy", "statistics", "trace"]}'
    assert read_extensions(body) == Extensions(binary=True, timeout=True, statistics=True)
    assert read_extensions(b'{"name": "other", "extensions": null}') == Extensions()
    assert read_max_rows(b'{"max_batch_size": 64}') == 64
    assert read_max_rows(b'{"max_batch_size": -1}') == 0


def test_statistics_of_all_versions_are_read() -> None:
    version = {
        "inference_count": 5,
        "inference_stats": {
            "success": {"count": 2, "ns": 9},
            "queue": {"count": 2, "ns": 1},
            **{f"compute_{part}": {"count": 2, "ns": 2} for part in ("input", "infer", "output")},
        },
    }
    assert list(read_totals(orjson.dumps({"model_stats": [version, {}]}))) == [Totals(2, 5, 1, 6), Totals(0, 0, 0, 0)]
    with pytest.raises(BackendFailed):
        read_totals(b"no statistics")
