"""ModelInferRequests: what is read from one, what is refused, and that nothing that is given is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import InferResult, service_pb2

from app.codec import oip_grpc
from backends.oip import datatype
from router.engine import Engine
from router.errors import InvalidField, InvalidTensor, MalformedBody, RouterError, UnknownModel, Unsupported
from router.model import Tensor, TensorSpec
from router.types import InferenceRequest, Priority
from tests.unit.app.codec.front import is_the_callers_fault, response

ROW = np.array([[1, 2]], np.float32)
NOW = 100.0


def message(model: str = "one", parameters: Mapping[str, Any] | None = None, **fields: Any) -> Any:
    """A request with one raw row; a parameter's value goes where tritonclient puts it."""
    made = service_pb2.ModelInferRequest(model_name=model, **fields)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    made.raw_input_contents.append(ROW.tobytes())
    for name, value in (parameters or {}).items():
        kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
        setattr(made.parameters[name], kinds[type(value)], value)
    return made


def read(
    engine: Engine, request: Any, headers: dict[bytes, bytes] | None = None, remaining_s: float | None = None
) -> InferenceRequest:
    return oip_grpc.decode(request, headers or {}, engine, NOW, remaining_s)[0]


def refused(engine: Engine, kind: type[RouterError], request: Any, headers: dict[bytes, bytes] | None = None) -> str:
    with pytest.raises(kind) as caught:
        read(engine, request, headers)
    return caught.value.detail


def test_what_is_given_is_read(engine: Engine) -> None:
    asked = message(
        id="mine", parameters={"data_class": "phi", "deadline_ms": 250, "priority": "high", "temperature": 0.5}
    )
    request = read(engine, asked)
    assert (request.id, request.model, request.data_class) == ("mine", "one", "phi")
    assert request.deadline == pytest.approx(NOW + 0.25)
    assert request.priority is Priority.HIGH
    assert request.parameters == {"temperature": 0.5}
    assert request.payload["x"].tolist() == [[1, 2]]  # type: ignore[index]


def test_what_is_not_given_is_made_up(engine: Engine) -> None:
    request = read(engine, message())
    assert request.id
    assert (request.data_class, request.deadline, request.priority) == ("unclassified", None, Priority.NORMAL)


def test_a_numeric_priority_is_tritons_own(engine: Engine) -> None:
    asked = message()
    asked.parameters["priority"].uint64_param = 3
    request = read(engine, asked)
    assert request.priority is Priority.NORMAL
    assert request.parameters == {"priority": 3}


def test_facts_in_metadata_are_read_as_headers_are(engine: Engine) -> None:
    metadata = [("user-agent", "x"), ("x-data-class", "phi"), ("x-deadline-ms", "250"), ("x-priority", "low")]
    request = read(engine, message(), oip_grpc.fact_headers([*metadata, ("x-request-id", "mine")]))
    assert (request.id, request.data_class, request.priority) == ("mine", "phi", Priority.LOW)
    assert request.deadline == pytest.approx(NOW + 0.25)


@pytest.mark.parametrize("key", ["x-data-class", "x-deadline-ms", "x-priority", "x-request-id"])
def test_a_fact_given_twice_with_other_values_is_refused(engine: Engine, key: str) -> None:
    assert oip_grpc.fact_headers([(key, "1"), (key, "1")]) == {key.encode(): b"1"}
    with pytest.raises(InvalidField, match="given twice"):
        oip_grpc.fact_headers([(key, "1"), (key, "2")])


def test_a_data_class_in_metadata_and_parameters_must_be_the_same(engine: Engine) -> None:
    asked = message(parameters={"data_class": "phi"})
    assert read(engine, asked, {b"x-data-class": b"phi"}).data_class == "phi"
    refused(engine, InvalidField, asked, {b"x-data-class": b"unclassified"})


def test_a_data_class_of_a_tensor_is_not_ignored(engine: Engine) -> None:
    asked = message()
    asked.inputs[0].parameters["data_class"].string_param = "phi"
    assert "parameters of the request" in refused(engine, InvalidField, asked)


@pytest.mark.parametrize(
    ("given", "remaining_s", "deadline"),
    [(None, 0.2, 0.2), (100, 0.2, 0.1), (300, 0.2, 0.2), (300, None, 0.3), (None, 0.0, 0.0), (None, 1e9, 600.0)],
)
def test_the_nearer_deadline_counts(
    engine: Engine, given: int | None, remaining_s: float | None, deadline: float
) -> None:
    asked = message(parameters={} if given is None else {"deadline_ms": given})
    assert read(engine, asked, None, remaining_s).deadline == pytest.approx(NOW + deadline)


@pytest.mark.parametrize(
    "parameters",
    [
        *[{"data_class": wrong} for wrong in (1, "secret", "")],
        *[{"deadline_ms": wrong} for wrong in ("250", True, 0, -1.0, float("nan"))],
        {"priority": "urgent"},
    ],
)
def test_a_fact_that_is_not_acceptable_is_refused(engine: Engine, parameters: dict[str, Any]) -> None:
    assert next(iter(parameters)) in refused(engine, InvalidField, message(parameters=parameters))


def test_a_parameter_that_no_backend_could_be_told_is_refused(engine: Engine) -> None:
    asked = message()
    asked.parameters["seed"].uint64_param = 2**63
    assert "seed" in refused(engine, InvalidField, asked)
    asked = message()
    asked.parameters["seed"].SetInParent()
    assert "no value" in refused(engine, InvalidField, asked)


def test_raw_and_typed_exclude_one_another(engine: Engine) -> None:
    both = message()
    both.inputs[0].contents.fp32_contents.extend([1, 2])
    assert "one of the two" in refused(engine, InvalidTensor, both)
    too_many = message()
    too_many.raw_input_contents.append(b"")
    assert "1 inputs and 2 raw_input_contents" in refused(engine, InvalidTensor, too_many)
    typed = message()
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.fp32_contents.extend([1, 2])
    assert read(engine, typed).payload["x"].tolist() == [[1, 2]]  # type: ignore[index]


def test_an_input_given_twice_is_refused(engine: Engine) -> None:
    twice = message()
    twice.inputs.append(twice.inputs[0])
    twice.raw_input_contents.append(ROW.tobytes())
    assert "given twice" in refused(engine, InvalidField, twice)


def test_what_the_model_does_not_have_is_refused(engine: Engine) -> None:
    refused(engine, UnknownModel, message("none"))
    refused(engine, UnknownModel, message(model_version="2"))
    asked = message()
    asked.inputs[0].name = "z"
    assert "takes x" in refused(engine, InvalidTensor, asked)
    asked = message()
    asked.inputs[0].datatype = "FP64"
    assert "must be FP32" in refused(engine, InvalidTensor, asked)
    asked = message()
    asked.outputs.add(name="z")
    assert "it has y" in refused(engine, InvalidField, asked)


def test_tritons_extensions_that_are_not_spoken_are_said_so(engine: Engine) -> None:
    asked = message()
    asked.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert "shared memory" in refused(engine, Unsupported, asked)
    asked = message()
    asked.outputs.add(name="y").parameters["classification"].int64_param = 3
    assert "classification" in refused(engine, Unsupported, asked)


def test_an_answer_is_read_by_tritonclient() -> None:
    outputs: dict[str, Tensor] = {
        "scores": np.array([[0.5, 1.5]], np.float32),
        "label": np.array([3], np.int64),
        "text": np.array([b"ab", b""], object),
        "yes": np.array([True]),
    }
    specs = {
        name: TensorSpec(kind, (-1,))
        for name, kind in zip(outputs, ("float32", "int64", "string", "bool"), strict=True)
    }
    answer = oip_grpc.encode(response(outputs, specs, degraded=True), ())
    read_back = InferResult(answer)
    for name, tensor in outputs.items():
        assert read_back.get_output(name).datatype == datatype(specs[name].dtype)
        assert read_back.as_numpy(name).tolist() == tensor.tolist()
    assert answer.parameters["backend"].string_param == "edge"
    assert answer.parameters["degraded"].bool_param
    assert (answer.id, answer.model_name, answer.model_version) == ("r1", "m", "3")


def test_only_the_outputs_that_are_asked_for_are_answered() -> None:
    outputs = {"y": ROW, "z": ROW}
    specs = {name: TensorSpec("float32", (-1, 2)) for name in outputs}
    assert [output.name for output in oip_grpc.encode(response(outputs, specs), ("z",)).outputs] == ["z"]


texts = st.sampled_from(["x", "a", "b", "y", "one", "two", "bool-1", "string-2", "FP32", "INT64", "1", ""]) | st.text(
    max_size=8
)
values = st.one_of(
    st.builds(lambda v: service_pb2.InferParameter(string_param=v), texts),
    st.builds(lambda v: service_pb2.InferParameter(int64_param=v), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda v: service_pb2.InferParameter(uint64_param=v), st.integers(0, 2**64 - 1)),
    st.builds(lambda v: service_pb2.InferParameter(double_param=v), st.floats()),
    st.builds(lambda v: service_pb2.InferParameter(bool_param=v), st.booleans()),
    st.just(service_pb2.InferParameter()),
)
keys = st.sampled_from(["data_class", "deadline_ms", "priority", "timeout", "classification", "shared_memory_region"])
parameters = st.dictionaries(keys | st.text(max_size=4), values, max_size=3)
contents = st.builds(
    service_pb2.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=2),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2),
    int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
    fp32_contents=st.lists(st.floats(width=32), max_size=4),
    bytes_contents=st.lists(st.binary(max_size=4), max_size=2),
)
shapes = st.lists(st.integers(-1, 3) | st.integers(-(2**63), 2**63 - 1), max_size=4)
inputs = st.builds(
    service_pb2.ModelInferRequest.InferInputTensor,
    name=texts,
    datatype=texts,
    shape=shapes,
    parameters=parameters,
    contents=st.none() | contents,
)
outputs = st.builds(service_pb2.ModelInferRequest.InferRequestedOutputTensor, name=texts, parameters=parameters)
requests = st.builds(
    service_pb2.ModelInferRequest,
    model_name=texts,
    model_version=texts,
    id=texts,
    parameters=parameters,
    inputs=st.lists(inputs, max_size=3),
    outputs=st.lists(outputs, max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=16), max_size=3),
)


def fault(engine: Engine, body: bytes) -> RouterError | None:
    """Why a body is refused, or None if it is read."""
    try:
        read(engine, oip_grpc.parse(service_pb2.ModelInferRequest, body))
    except RouterError as error:
        return error
    return None


@given(requests)
def test_any_request_is_read_or_is_the_callers_fault(engine: Engine, request: Message) -> None:
    error = fault(engine, request.SerializeToString())
    assert error is None or (is_the_callers_fault(error) and error.detail)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_the_callers_fault(engine: Engine, body: bytes) -> None:
    error = fault(engine, body)
    assert error is None or is_the_callers_fault(error)


def test_bytes_that_are_no_message_are_called_that(engine: Engine) -> None:
    with pytest.raises(MalformedBody, match="ModelInferRequest"):
        oip_grpc.parse(service_pb2.ModelInferRequest, b"\xff")
