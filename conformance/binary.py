"""Checks of tensors that are not numbers in JSON: the binary tensor extension, halves of floats, texts, compression."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import grpc
import httpx
import orjson

from conformance.check import Check, Level
from conformance.inference import agree
from conformance.refusals import refused
from conformance.rest import (
    BINARY,
    BINARY_ONLY,
    HEADER_LENGTH,
    Answer,
    Document,
    Rest,
    answer_of,
    binary_input,
    excerpt,
    model_path,
    plain_input,
    plain_request,
)
from conformance.rpc import Rpc, raw_request, said, typed_request
from conformance.tensors import Model, samples
from conformance.verdict import Fails, NotOffered, NotTried

NOT_IN_USE = (415, 501)
"""Statuses of a server that says that it knows no such encoding."""


def _offered(rest: Rest) -> None:
    if not rest.offers_binary:
        raise NotOffered(f"the extensions do not name {BINARY}")


def _binary(rest: Rest, model: Model | None = None, **more: object) -> tuple[Document, bytes]:
    tensors = samples(model or rest.subject)
    document = {"inputs": [binary_input(tensor) for tensor in tensors], **more}
    return document, b"".join(tensor.raw() for tensor in tensors)


def _plain_answer(rest: Rest) -> Answer:
    return rest.infer(plain_request(samples(rest.subject)))


def _request(rest: Rest) -> None:
    _offered(rest)
    document, raw = _binary(rest)
    agree(lambda: answer_of(rest.post(document, raw=raw)).outputs, lambda: _plain_answer(rest).outputs)


def _response(rest: Rest) -> None:
    _offered(rest)
    document = plain_request(samples(rest.subject), parameters={"binary_data_output": True})
    response = rest.post(document)
    _in_binary(answer_of(response), frozenset(spec.name for spec in rest.subject.outputs))
    if response.headers.get("content-type") != "application/octet-stream":
        raise Fails(f"binary outputs come as {response.headers.get('content-type')}")
    agree(lambda: rest.infer(document).outputs, lambda: _plain_answer(rest).outputs)


def _in_binary(answer: Answer, expected: frozenset[str]) -> None:
    if answer.binary != expected:
        raise Fails(f"in binary form: {_list(answer.binary)}; asked for: {_list(expected)}")


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _mixed(rest: Rest) -> str:
    _offered(rest)
    several = [model for model in rest.models if len(model.inputs) > 1]
    model = several[0] if several else rest.subject
    if len(model.inputs) == len(model.outputs) == 1:
        raise NotTried("no model has two inputs or two outputs")
    tensors = samples(model)
    binary = {tensor.name for place, tensor in enumerate(tensors) if place % 2 == 0 or tensor.datatype in BINARY_ONLY}
    expected = frozenset(
        spec.name for place, spec in enumerate(model.outputs) if place % 2 or spec.datatype in BINARY_ONLY
    )
    document = {
        "inputs": [binary_input(tensor) if tensor.name in binary else plain_input(tensor) for tensor in tensors],
        "outputs": [
            {"name": spec.name, "parameters": {"binary_data": spec.name in expected}} for spec in model.outputs
        ],
    }
    raw = b"".join(tensor.raw() for tensor in tensors if tensor.name in binary)
    _in_binary(answer_of(rest.post(document, model, raw=raw)), expected)
    agree(lambda: answer_of(rest.post(document, model, raw=raw)).outputs, lambda: rest.ask(model).outputs)
    return model.name


def _per_output(rest: Rest) -> None:
    _offered(rest)
    first, *others = (spec.name for spec in rest.subject.outputs)
    outputs = [{"name": first, "parameters": {"binary_data": False}}]
    outputs += [{"name": name, "parameters": {"binary_data": True}} for name in others]
    document = plain_request(samples(rest.subject), outputs=outputs, parameters={"binary_data_output": True})
    _in_binary(rest.infer(document), frozenset(others))


def _default(rest: Rest) -> None:
    _offered(rest)
    names = [spec.name for spec in rest.subject.outputs]
    outputs = [{"name": name} for name in names]
    document = plain_request(samples(rest.subject), outputs=outputs, parameters={"binary_data_output": True})
    _in_binary(rest.infer(document), frozenset(names))


def _header_length(rest: Rest) -> None:
    _offered(rest)
    document, raw = _binary(rest)
    right = len(orjson.dumps(document))
    for length in (str(right + len(raw) + 1), "-1", "many", str(right - 1)):
        refused(rest.post(document, raw=raw, length=length), f"{HEADER_LENGTH}: {length}")


def _sizes(rest: Rest) -> None:
    _offered(rest)
    document, raw = _binary(rest)
    parameters = document["inputs"][-1]["parameters"]
    right = parameters["binary_data_size"]
    for size in (right - 1, right + 1, -right, 2**62):
        parameters["binary_data_size"] = size
        refused(rest.post(document, raw=raw), f"binary_data_size {size} for {right}")
    parameters["binary_data_size"] = right
    refused(rest.post(document, raw=raw + b"0"), "a byte that belongs to no tensor")


def _rest_halves(rest: Rest) -> str:
    _offered(rest)
    model = _halves(rest.models)
    rest.ask(model)
    return model.name


def _rpc_halves(rpc: Rpc) -> str:
    model = _halves(rpc.models)
    rpc.ask(model)
    return model.name


def _halves(models: tuple[Model, ...]) -> Model:
    for model in models:
        if any(spec.datatype == "FP16" for spec in model.inputs):
            return model
    raise NotTried("no model takes FP16")


def _bytes_models(models: tuple[Model, ...]) -> list[Model]:
    """Those that take texts, the ones without halves of floats first."""
    found = [model for model in models if any(spec.datatype == "BYTES" for spec in model.inputs)]
    if not found:
        raise NotTried("no model takes BYTES")
    return sorted(found, key=lambda model: bool(model.datatypes & set(BINARY_ONLY)))


def _first_answer(rest: Rest, make: Callable[[Model], httpx.Response]) -> str:
    """The first model that takes texts. A model may want other bytes than these, and say so with a 4xx."""
    sentence = ""
    for model in _bytes_models(rest.models):
        response = make(model)
        if not 400 <= response.status_code < 500:
            answer_of(response)
            return model.name
        sentence = f"{model.name} takes BYTES, but no texts: {excerpt(response)}"
    raise NotTried(sentence)


def _rest_bytes(rest: Rest) -> str:
    def make(model: Model) -> httpx.Response:
        document, raw = rest.request(model)
        return rest.post(document, model, raw=raw)

    return _first_answer(rest, make)


def _rest_binary_bytes(rest: Rest) -> str:
    _offered(rest)

    def make(model: Model) -> httpx.Response:
        document, raw = _binary(rest, model, parameters={"binary_data_output": True})
        response = rest.post(document, model, raw=raw)
        if response.status_code == 200:
            agree(lambda: answer_of(response).outputs, lambda: rest.ask(model).outputs)
        return response

    return _first_answer(rest, make)


def _rpc_bytes(rpc: Rpc) -> str:
    sentence = ""
    for model in _bytes_models(rpc.models):
        try:
            raw = rpc.infer(raw_request(model, samples(model)))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            sentence = f"{model.name} takes BYTES, but no texts: {said(error)}"
            continue
        if not model.datatypes & set(BINARY_ONLY):
            agree(lambda: raw.outputs, lambda: rpc.infer(typed_request(model, samples(model))).outputs)  # noqa: B023
        return model.name
    raise NotTried(sentence)


def _compressed(name: str, compress: Callable[[bytes], bytes]) -> Callable[[Rest], None]:
    def check(rest: Rest) -> None:
        body = orjson.dumps(plain_request(samples(rest.subject)))
        headers = {"Content-Encoding": name, "Content-Type": "application/json"}
        path = f"{model_path(rest.subject)}/infer"

        def ask() -> httpx.Response:
            return rest.http.post(path, content=compress(body), headers=headers)

        first = ask()
        if first.status_code in NOT_IN_USE:
            raise NotOffered(f"{first.status_code}: {excerpt(first)}")
        agree(lambda: answer_of(ask()).outputs, lambda: _plain_answer(rest).outputs)

    return check


def _compressed_answer(rest: Rest) -> str:
    body = orjson.dumps(plain_request(samples(rest.subject)))
    path, kind = f"{model_path(rest.subject)}/infer", {"Content-Type": "application/json"}
    seen = []
    for encoding in ("gzip", "deflate"):
        response = rest.http.post(path, content=body, headers=kind | {"Accept-Encoding": encoding})
        answer_of(response)
        if response.headers.get("content-encoding", "identity") not in ("identity", encoding):
            raise Fails(f"asked for {encoding}, answered in {response.headers['content-encoding']}")
        if "content-encoding" in response.headers:
            seen.append(encoding)
    if not seen:
        raise NotOffered("answers are not compressed")
    return ", ".join(seen)


CHECKS = (
    Check(
        "bytes", "BYTES are texts in JSON, and raw or typed contents in gRPC.", Level.REQUIRED, _rest_bytes, _rpc_bytes
    ),
    Check("fp16", "FP16 travels as raw contents, over REST in binary form.", Level.REQUIRED, _rest_halves, _rpc_halves),
    Check("binary-request", "Inputs may be sent in binary form after the JSON.", Level.EXTENSION, _request),
    Check(
        "binary-response",
        "With binary_data_output all outputs come in binary form, as application/octet-stream.",
        Level.EXTENSION,
        _response,
    ),
    Check("binary-mixed", "JSON and binary tensors may stand side by side, both ways.", Level.EXTENSION, _mixed),
    Check(
        "binary-per-output",
        "An output's binary_data beats the request's binary_data_output.",
        Level.EXTENSION,
        _per_output,
    ),
    Check(
        "binary-default",
        "The request's binary_data_output holds for an output that is named without a binary_data of its own.",
        Level.EXTENSION,
        _default,
    ),
    Check(
        "binary-bytes",
        "In binary form an element of BYTES is its length and itself.",
        Level.EXTENSION,
        _rest_binary_bytes,
    ),
    Check(
        "binary-header-length",
        "A length of the JSON that is not its length is refused.",
        Level.EXTENSION,
        _header_length,
    ),
    Check("binary-sizes", "Sizes that do not fit tensor or body are refused.", Level.EXTENSION, _sizes),
    Check(
        "gzip-request", "A request may be compressed with gzip.", Level.EXTENSION, _compressed("gzip", gzip.compress)
    ),
    Check(
        "deflate-request",
        "A request may be compressed with deflate.",
        Level.EXTENSION,
        _compressed("deflate", zlib.compress),
    ),
    Check(
        "compressed-answer",
        "An answer is compressed only as Accept-Encoding allows.",
        Level.EXTENSION,
        _compressed_answer,
    ),
)
