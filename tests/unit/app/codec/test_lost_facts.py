"""A data class that is given is never lost in silence, wherever it stands: data would lose its protection with it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from tritonclient.grpc import service_pb2

from app.codec import native, oip, oip_grpc
from app.codec.facts import by_name
from router.engine import Engine
from router.errors import InvalidField

JSON = {b"content-type": b"application/json"}
NATIVE = '{"model": "one", "inputs": {"x": [[1, 2]]}, %s}'
OIP = '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}], %s}'
TWICE = '"data_class": "phi", "data_class": "unclassified"'
ESCAPED = '"data_class": "phi", "data\\u005fclass": "unclassified"'


def ask_native(engine: Engine, body: str, query: bytes = b"") -> str:
    return native.decode(body.encode(), JSON, query, engine, 0.0).data_class


def ask_oip(engine: Engine, body: str, query: bytes = b"") -> str:
    return oip.decode(body.encode(), JSON, query, "one", None, engine, 0.0)[0].data_class


@pytest.mark.parametrize("twice", [TWICE, ESCAPED])
def test_a_key_given_twice_is_refused(engine: Engine, twice: str) -> None:
    with pytest.raises(InvalidField) as caught:
        ask_native(engine, NATIVE % twice)
    assert caught.value.field == "data_class"
    with pytest.raises(InvalidField):
        ask_oip(engine, OIP % f'"parameters": {{{twice}}}')


def test_a_key_given_once_is_taken_also_where_text_is_escaped(engine: Engine) -> None:
    assert ask_native(engine, NATIVE % '"data\\u005fclass": "phi"') == "phi"
    assert ask_oip(engine, OIP % '"parameters": {"data_class": "phi"}, "id": "\\u0041"') == "phi"


@pytest.mark.parametrize("query", [b"data_class=phi", b"x=1&data_class=", b"data%5Fclass=phi"])
def test_a_query_beside_a_json_body_is_refused(engine: Engine, query: bytes) -> None:
    with pytest.raises(InvalidField):
        ask_native(engine, json.dumps({"model": "one", "inputs": {"x": [[1, 2]]}}), query)
    with pytest.raises(InvalidField):
        ask_oip(engine, OIP % '"id": "r1"', query)


def test_one_beside_the_protocols_parameters_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidField):
        ask_oip(engine, OIP % '"data_class": "phi"')
    for tensor in ('"inputs": [{"name": "x", "data_class": "phi"', '"outputs": [{"name": "y", "data_class": "phi"'):
        body = (OIP % '"outputs": [{"name": "y"}]').replace(tensor.partition(",")[0], tensor)
        assert "phi" in body
        with pytest.raises(InvalidField):
            ask_oip(engine, body)


def test_one_among_the_parameters_of_our_own_route_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidField):
        ask_native(engine, NATIVE % '"parameters": {"data_class": "phi"}')


def test_one_given_twice_over_grpc_is_refused() -> None:
    given = []
    for data_class in ("phi", "unclassified"):
        message = service_pb2.ModelInferRequest(model_name="one")
        message.parameters["data_class"].string_param = data_class
        given.append(message.SerializeToString())
    assert oip_grpc.parse(service_pb2.ModelInferRequest, given[0]).model_name == "one"
    with pytest.raises(InvalidField):
        oip_grpc.parse(service_pb2.ModelInferRequest, b"".join(given).replace(b"\n\x03one", b"", 1))


@pytest.mark.parametrize("query", [b"model=one&data_class=", b"model=one&data_class=phi&data_class=camera"])
def test_an_empty_or_second_one_in_an_images_query_is_refused(engine: Engine, query: bytes) -> None:
    with pytest.raises(InvalidField):
        engine.data_class(native._query(query).data_class)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-data-class", b"phi"), (b"x-data-class", b"unclassified")],
        [(b"x-data-class", b"unclassified"), (b"accept", b"*/*"), (b"x-data-class", b"phi")],
    ],
)
def test_a_header_given_twice_is_refused(headers: Sequence[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidField):
        by_name(headers)
