"""Checks of how a server refuses: with which status, for which path and verb, and that it goes on afterwards."""

from __future__ import annotations

import grpc
from tritonclient.grpc import service_pb2 as pb

from conformance.check import Check, Level
from conformance.refusals import NOWHERE, WRONG, ask_nowhere, refused
from conformance.rest import Rest, excerpt, model_path, plain_request
from conformance.rpc import Rpc, raw_request, refusal, said
from conformance.tensors import samples
from conformance.verdict import Fails, NotTried

LARGE_MESSAGE = 32 * 1024 * 1024
BRIEF_S = 1e-3

CALLERS_FAULT = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
)


def _rest_fault(rest: Rest) -> None:
    taken = []
    for wrong in WRONG:
        if wrong.rest is None:
            continue
        try:
            status = wrong.rest(rest).status_code
        except NotTried:
            continue
        if status >= 500:
            taken.append(f"{wrong.name} is {status}")
    _blame(taken)


def _rpc_fault(rpc: Rpc) -> None:
    taken = []
    for wrong in WRONG:
        if wrong.rpc is None:
            continue
        try:
            wrong.rpc(rpc)
        except NotTried:
            continue
        except grpc.RpcError as error:
            if error.code() not in CALLERS_FAULT:
                taken.append(f"{wrong.name} is {error.code().name}")
    _blame(taken)


def _blame(taken: list[str]) -> None:
    if taken:
        raise Fails(f"a caller's own fault is said to be the server's: {', '.join(taken)}")


def _rest_not_found(rest: Rest) -> None:
    for what, response in (("metadata", rest.get(model_path(NOWHERE))), ("inference", ask_nowhere(rest))):
        if response.status_code != 404:
            raise Fails(f"{what} of a model that is not there: {response.status_code}: {excerpt(response)}")


def _rpc_not_found(rpc: Rpc) -> None:
    metadata = pb.ModelMetadataRequest(name=NOWHERE.name)
    for what, call in (
        ("metadata", lambda: rpc.call("ModelMetadata", metadata)),
        ("inference", lambda: rpc.call("ModelInfer", raw_request(NOWHERE, samples(rpc.subject)))),
    ):
        status = refusal(call, what)
        if status != "NOT_FOUND":
            raise Fails(f"{what} of a model that is not there: {status}")


def _path(rest: Rest) -> None:
    response = rest.get("/v2/no/such/path")
    refused(response, "a path that is not there")
    if response.status_code != 404:
        raise Fails(f"a path that is not there: {response.status_code}")


def _verb(rest: Rest) -> None:
    for verb, path in (("GET", f"{model_path(rest.subject)}/infer"), ("POST", "/v2/health/live")):
        response = rest.http.request(verb, path)
        refused(response, f"{verb} {path}")
        if response.status_code != 405:
            raise Fails(f"{verb} {path}: {response.status_code}")


def _content_type(rest: Rest) -> None:
    for what, response in (
        ("metadata", rest.get(model_path(rest.subject))),
        ("an answer", rest.post(plain_request(samples(rest.subject)))),
        ("an error", rest.post(plain_request(samples(rest.subject), outputs=[{"name": "no_such_output"}]))),
    ):
        kind = response.headers.get("content-type", "no Content-Type")
        if kind.partition(";")[0] != "application/json":
            raise Fails(f"{what} comes as {kind}")


def _deadline(rpc: Rpc) -> None:
    request = raw_request(rpc.subject, samples(rpc.subject))
    try:
        rpc.call("ModelInfer", request, BRIEF_S)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise Fails(f"a call whose deadline has passed: {said(error)}") from None
    rpc.infer(request)


def _large(rpc: Rpc) -> str:
    request = raw_request(rpc.subject, samples(rpc.subject))
    request.raw_input_contents[0] = bytes(LARGE_MESSAGE)
    status = refusal(lambda: rpc.call("ModelInfer", request), f"{LARGE_MESSAGE} bytes")
    if status not in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"):
        raise Fails(f"{LARGE_MESSAGE} bytes: {status}")
    rpc.infer(raw_request(rpc.subject, samples(rpc.subject)))
    return status


CHECKS = (
    Check(
        "not-found", "A model that is not there is a 404, NOT_FOUND.", Level.EXTENSION, _rest_not_found, _rpc_not_found
    ),
    Check(
        "callers-fault",
        "What is wrong with a request is a 4xx, INVALID_ARGUMENT or the like: what is the server's fault is repeated.",
        Level.EXTENSION,
        _rest_fault,
        _rpc_fault,
    ),
    Check("unknown-path", 'A path that is not there is a 404 with an {"error"}.', Level.EXTENSION, _path),
    Check("wrong-verb", 'Another verb than the path\'s is a 405 with an {"error"}.', Level.EXTENSION, _verb),
    Check("content-type", "Answers and errors say that they are application/json.", Level.EXTENSION, _content_type),
    Check(
        "deadline",
        "A call whose deadline passes does no harm to the next one.",
        Level.EXTENSION,
        None,
        _deadline,
    ),
    Check(
        "large-message",
        "A message that is too large is RESOURCE_EXHAUSTED or INVALID_ARGUMENT, and the connection goes on.",
        Level.EXTENSION,
        None,
        _large,
    ),
)
