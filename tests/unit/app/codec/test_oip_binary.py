"""The binary tensor data extension: raw tensors behind the JSON, in any mixture, both ways."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.codec import oip
from backends.oip import datatype, encode_raw
from router.engine import Engine
from router.errors import InvalidField, InvalidTensor, MalformedBody, RouterError, Unsupported
from router.model import DTYPES, Tensor, TensorSpec
from router.types import InferenceRequest
from tests.unit.app.codec.front import is_the_callers_fault, response
from tests.unit.app.codec.test_json_tensors import tensors

ROW = np.array([[1.5, -2.0]], np.float32)
X: dict[str, Any] = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}


def message(body: Any, *raw: bytes, pad: int = 0) -> tuple[bytes, bytes]:
    """A body, and the length of its JSON; `pad` spaces in that move what follows."""
    document = json.dumps(body).encode() + b" " * pad
    return b"".join((document, *raw)), str(len(document)).encode()


def decode(
    engine: Engine, content: bytes, length: bytes | None, model: str = "one"
) -> tuple[InferenceRequest, oip.Wanted]:
    headers = {} if length is None else {oip.HEADER_LENGTH: length}
    return oip.decode(content, headers, b"", model, None, engine, 50.0)


def refused(engine: Engine, content: bytes, length: bytes | None, model: str = "one") -> RouterError:
    with pytest.raises(RouterError) as caught:
        decode(engine, content, length, model)
    assert is_the_callers_fault(caught.value)
    return caught.value


def only(request: InferenceRequest) -> Tensor:
    assert isinstance(request.payload, dict)
    (tensor,) = request.payload.values()
    found: Tensor = tensor
    return found


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and encode_raw(one) == encode_raw(other)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data(), st.integers(0, 7))
def test_a_raw_tensor_is_read_wherever_it_stands(engine: Engine, dtype: str, data: st.DataObject, pad: int) -> None:
    tensor = data.draw(tensors(dtype))
    raw = encode_raw(tensor)
    given_input = {"name": "x", "shape": list(tensor.shape), "datatype": datatype(dtype)}
    content, length = message(
        {"inputs": [given_input | {"parameters": {"binary_data_size": len(raw)}}], **BINARY_OUT}, raw, pad=pad
    )
    request, wanted = decode(engine, content, length, f"{dtype}-{tensor.ndim}")
    found = only(request)
    assert same(found, tensor)
    assert found.flags.aligned
    assert wanted == {"y": True}


BINARY_OUT = {"parameters": {"binary_data_output": True}}


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_what_is_written_raw_reads_back(engine: Engine, dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    content, headers = oip.encode(response({"x": tensor}, {"x": TensorSpec(dtype, (-1,) * tensor.ndim)}), {"x": True})
    by_name = dict(headers)
    assert by_name[b"content-type"] == b"application/octet-stream"
    end = int(by_name[oip.HEADER_LENGTH])
    answer = json.loads(content[:end])
    (output,) = answer["outputs"]
    assert "data" not in output
    assert output["parameters"]["binary_data_size"] == len(content) - end
    again, length = message({"inputs": [output], **BINARY_OUT}, content[end:])
    assert same(only(decode(engine, again, length, f"{dtype}-{tensor.ndim}")[0]), tensor)


def test_a_tensor_is_a_view_over_what_was_received(engine: Engine) -> None:
    for pad in range(8):
        content, length = message({"inputs": [X]}, ROW.tobytes(), pad=pad)
        found = only(decode(engine, content, length)[0])
        overlaps = np.shares_memory(found, np.frombuffer(content, np.uint8))
        assert overlaps == (int(length) % 4 == 0)
        assert found.ctypes.data % 4 == 0


@pytest.mark.parametrize("in_json", [(), ("a",), ("b",), ("a", "b")])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_json_and_raw_tensors_mix_in_any_order(engine: Engine, in_json: tuple[str, ...], order: str) -> None:
    values = {"a": np.array([-1, 2], np.int64), "b": np.array([[True, False], [False, True]])}
    inputs, raw = [], []
    for name in order:
        tensor = {"name": name, "shape": list(values[name].shape), "datatype": datatype(values[name].dtype)}
        if name in in_json:
            inputs.append(tensor | {"data": values[name].tolist()})
        else:
            raw.append(values[name].tobytes())
            inputs.append(tensor | {"parameters": {"binary_data_size": len(raw[-1])}})
    request, _ = decode(engine, *message({"inputs": inputs}, *raw), "two")
    assert isinstance(request.payload, dict)
    for name, value in values.items():
        assert same(request.payload[name], value)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, {"y": False}),
        ({"parameters": {"binary_data_output": True}}, {"y": True}),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}, {"y": True}),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": False}}], **BINARY_OUT}, {"y": False}),
        ({"outputs": [{"name": "y", "parameters": {}}], **BINARY_OUT}, {"y": True}),
        ({"outputs": [{"name": "y"}], **BINARY_OUT}, {"y": True}),
    ],
)
def test_what_an_output_says_of_itself_wins(engine: Engine, asked: dict[str, Any], wanted: dict[str, bool]) -> None:
    request, found = decode(engine, *message({"inputs": [X], **asked}, ROW.tobytes()))
    assert found == wanted
    assert "binary_data_output" not in request.parameters


def test_answers_may_be_mixed_too() -> None:
    outputs = {name: np.array([1, 2], np.int64) for name in "abc"}
    content, headers = oip.encode(
        response(outputs, {name: TensorSpec("int64", (-1,)) for name in "abc"}), {"c": True, "a": False, "b": True}
    )
    end = int(dict(headers)[oip.HEADER_LENGTH])
    written = json.loads(content[:end])["outputs"]
    assert [(output["name"], "data" in output) for output in written] == [("c", False), ("a", True), ("b", False)]
    assert content[end:] == outputs["c"].tobytes() + outputs["b"].tobytes()


@pytest.mark.parametrize(
    "length", [b"", b"-1", b"0", b"+5", b"1e3", b"0x10", b" 5", b"9" * 30, b"5.0", b"\xff", b"\xb2"]
)
def test_a_length_that_is_none_is_refused(engine: Engine, length: bytes) -> None:
    error = refused(engine, message({"inputs": [X]}, ROW.tobytes())[0], length)
    assert isinstance(error, MalformedBody)
    assert "Inference-Header-Content-Length" in error.detail


@pytest.mark.parametrize("by", [-5, -1, 1, 3, 9, 1000])
def test_a_length_that_is_wrong_is_refused(engine: Engine, by: int) -> None:
    content, length = message({"inputs": [X]}, ROW.tobytes())
    assert isinstance(refused(engine, content, str(int(length) + by).encode()), MalformedBody)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"parameters": {"binary_data_size": -1}}, MalformedBody),
        ({"parameters": {"binary_data_size": 7}}, InvalidTensor),
        ({"parameters": {"binary_data_size": 4}}, InvalidTensor),
        ({"parameters": {"binary_data_size": 9}}, MalformedBody),
        ({"parameters": {"binary_data_size": 1 << 62}}, MalformedBody),
        ({"parameters": {"binary_data_size": 1 << 80}}, MalformedBody),
        ({"parameters": {"binary_data_size": True}}, MalformedBody),
        ({"parameters": {"binary_data_size": 8.0}}, MalformedBody),
        ({"parameters": {"binary_data_size": "8"}}, MalformedBody),
        ({"data": [1, 2]}, InvalidTensor),
        ({"shape": [1, 3]}, InvalidTensor),
        ({"shape": [1, -2]}, InvalidTensor),
        ({"shape": [1 << 40, 1 << 40]}, InvalidTensor),
        ({"parameters": {}, "data": [1, 2]}, MalformedBody),
        ({"parameters": {"binary_data_size": 8, "shared_memory_region": "r"}}, Unsupported),
        ({"parameters": {"binary_data_size": 8, "data_class": "phi"}}, InvalidField),
    ],
)
def test_an_input_that_is_not_as_it_says_is_refused(
    engine: Engine, change: dict[str, Any], kind: type[RouterError]
) -> None:
    assert isinstance(refused(engine, *message({"inputs": [X | change]}, ROW.tobytes())), kind)


def test_a_size_without_a_length_is_refused(engine: Engine) -> None:
    content, _ = message({"inputs": [X]})
    assert "Inference-Header-Content-Length" in refused(engine, content, None).detail


@pytest.mark.parametrize("size", [1, 10, 1 << 30])
def test_bytes_that_nobody_declares_are_refused(engine: Engine, size: int) -> None:
    content, length = message({"inputs": [X]}, ROW.tobytes(), b"more")
    assert "4 bytes follow" in refused(engine, content, length).detail


def test_a_bool_is_0_or_1(engine: Engine) -> None:
    tensor = {"name": "x", "shape": [3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}}
    assert isinstance(refused(engine, *message({"inputs": [tensor]}, b"\0\1\2"), "bool-1"), InvalidTensor)


@pytest.mark.parametrize(
    "raw",
    [b"\1", b"\0\0\0", b"\2\0\0\0a", b"\1\0\0\0a\0", b"\xff\xff\xff\xffa", b"\1\0\0\0a\1\0\0\0b\1\0\0\0c"],
)
def test_texts_that_do_not_add_up_are_refused(engine: Engine, raw: bytes) -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    assert isinstance(refused(engine, *message({"inputs": [tensor]}, raw), "string-1"), InvalidTensor)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"parameters": {"binary_data_output": 1}}, InvalidField),
        ({"parameters": {"binary_data_output": "true"}}, InvalidField),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, MalformedBody),
        ({"outputs": [{"name": "y", "parameters": {"classification": 3}}]}, Unsupported),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, Unsupported),
        ({"outputs": [{"name": "y", "parameters": {"data_class": "phi"}}]}, InvalidField),
    ],
)
def test_an_output_that_cannot_be_had_is_refused(
    engine: Engine, asked: dict[str, Any], kind: type[RouterError]
) -> None:
    assert isinstance(refused(engine, *message({"inputs": [X], **asked}, ROW.tobytes())), kind)


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 20, 1 << 20], [1 << 31, 1 << 9], [0, 1 << 60], [1 << 600]])
@pytest.mark.parametrize("dtype", ["uint8", "float64", "string", "bfloat16"])
def test_a_claim_costs_no_memory(engine: Engine, dtype: str, shape: list[int]) -> None:
    tensor = {"name": "x", "shape": shape, "datatype": datatype(dtype), "parameters": {"binary_data_size": 800}}
    content, length = message({"inputs": [tensor]}, bytes(800))
    refused(engine, content, length, f"{dtype}-{len(shape)}")
    tracemalloc.start()
    try:
        refused(engine, content, length, f"{dtype}-{len(shape)}")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(0, 220))
def test_any_bytes_are_read_or_are_the_senders_fault(engine: Engine, content: bytes, length: int) -> None:
    refused(engine, content, str(length).encode())


@given(st.binary(max_size=12), st.integers(0, 400), st.integers(0, 6), st.integers(-3, 3))
def test_a_spoilt_message_is_read_or_is_the_senders_fault(
    engine: Engine, garbage: bytes, where: int, cut: int, by: int
) -> None:
    content, length = message({"inputs": [X], "outputs": [{"name": "y"}], **BINARY_OUT}, ROW.tobytes())
    where %= len(content)
    spoilt = content[:where] + garbage + content[where + cut :]
    try:
        request, _ = decode(engine, spoilt, str(int(length) + by).encode())
    except RouterError as error:
        if not is_the_callers_fault(error):
            raise
    else:
        assert only(request).shape == (1, 2)
