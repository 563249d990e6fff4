"""Checks of liveness, readiness and metadata."""

from __future__ import annotations

import httpx
from tritonclient.grpc import service_pb2 as pb

from conformance.check import Check, Level
from conformance.rest import Rest, excerpt, json_of, model_of, model_path
from conformance.rpc import Rpc, rpc_model
from conformance.tensors import DTYPES, Model, a_version
from conformance.verdict import Fails


def _yes(response: httpx.Response) -> None:
    if response.status_code != 200:
        raise Fails(f"{response.request.url.path} answers {response.status_code}: {excerpt(response)}")


def _true(said: bool) -> None:
    if not said:
        raise Fails("the answer is no")


def _rest_live(rest: Rest) -> None:
    _yes(rest.get("/v2/health/live"))


def _rpc_live(rpc: Rpc) -> None:
    _true(rpc.call("ServerLive", pb.ServerLiveRequest()).live)


def _rest_ready(rest: Rest) -> None:
    _yes(rest.get("/v2/health/ready"))


def _rpc_ready(rpc: Rpc) -> None:
    _true(rpc.call("ServerReady", pb.ServerReadyRequest()).ready)


def _rest_model_ready(rest: Rest) -> None:
    _yes(rest.get(f"{model_path(rest.subject)}/ready"))


def _rpc_model_ready(rpc: Rpc) -> None:
    _true(rpc.call("ModelReady", pb.ModelReadyRequest(name=rpc.subject.name)).ready)


def _rest_versioned(rest: Rest) -> None:
    path = model_path(rest.subject, a_version(rest.subject))
    _yes(rest.get(f"{path}/ready"))
    metadata = rest.get(path)
    _yes(metadata)
    _same(model_of(json_of(metadata.content)), rest.subject)


def _rpc_versioned(rpc: Rpc) -> None:
    name, version = rpc.subject.name, a_version(rpc.subject)
    _true(rpc.call("ModelReady", pb.ModelReadyRequest(name=name, version=version)).ready)
    _same(rpc_model(rpc.call("ModelMetadata", pb.ModelMetadataRequest(name=name, version=version))), rpc.subject)


def _same(versioned: Model, other: Model) -> None:
    if versioned.name != other.name:
        raise Fails(f"the version's metadata is that of {versioned.name}")


def _rest_ready_body(rest: Rest) -> None:
    for path, field in (
        ("/v2/health/live", "live"),
        ("/v2/health/ready", "ready"),
        (f"{model_path(rest.subject)}/ready", "ready"),
    ):
        response = rest.get(path)
        if json_of(response.content).get(field) is not True:
            raise Fails(f'{path} does not say {{"{field}": true}}: {excerpt(response)}')


def _rest_server(rest: Rest) -> str:
    response = rest.get("/v2")
    if response.status_code != 200:
        response = rest.get("/v2/")
    _yes(response)
    document = json_of(response.content)
    _server(document.get("name"), document.get("version"), document.get("extensions"))
    return f"{document['name']} {document['version']}"


def _rpc_server(rpc: Rpc) -> str:
    message = rpc.call("ServerMetadata", pb.ServerMetadataRequest())
    _server(message.name, message.version, list(message.extensions))
    return f"{message.name} {message.version}"


def _server(name: object, version: object, extensions: object) -> None:
    if not (isinstance(name, str) and name and isinstance(version, str) and version):
        raise Fails(f"name {name!r}, version {version!r}")
    if not isinstance(extensions, list) or not all(isinstance(extension, str) for extension in extensions):
        raise Fails(f"extensions {extensions!r}")


def _rest_trailing_slash(rest: Rest) -> None:
    for path in ("/v2", "/v2/"):
        _yes(rest.get(path))


def _rest_model(rest: Rest) -> None:
    response = rest.get(model_path(rest.subject))
    _yes(response)
    document = json_of(response.content)
    for field in ("inputs", "outputs"):
        if not isinstance(document.get(field), list):
            raise Fails(f"{field!r} is {document.get(field)!r}, not a list")
    if not isinstance(document.get("platform"), str):
        raise Fails(f"'platform' is {document.get('platform')!r}, not a text")
    _model(model_of(document), rest.subject.name)


def _rpc_model(rpc: Rpc) -> None:
    _model(rpc_model(rpc.call("ModelMetadata", pb.ModelMetadataRequest(name=rpc.subject.name))), rpc.subject.name)


def _model(model: Model, name: str) -> None:
    if model.name != name:
        raise Fails(f"the metadata of {name} is that of {model.name}")
    if not model.inputs or not model.outputs:
        raise Fails(f"{name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs")
    unknown = model.datatypes - DTYPES.keys()
    if unknown:
        raise Fails(f"{name} has the datatypes {', '.join(sorted(unknown))}, which the protocol does not know")


CHECKS = (
    Check("live", "GET v2/health/live and ServerLive say yes.", Level.REQUIRED, _rest_live, _rpc_live),
    Check("ready", "GET v2/health/ready and ServerReady say yes.", Level.REQUIRED, _rest_ready, _rpc_ready),
    Check(
        "ready-body",
        'The bodies of liveness and readiness are {"live": true} and {"ready": true}, which KServe\'s client reads; '
        "Triton's reads the status alone.",
        Level.EXTENSION,
        _rest_ready_body,
    ),
    Check(
        "server-metadata",
        "GET v2 and ServerMetadata tell name, version and extensions.",
        Level.REQUIRED,
        _rest_server,
        _rpc_server,
    ),
    Check(
        "trailing-slash",
        "Server metadata is found at /v2, as the protocol's text has it, and at /v2/, as its OpenAPI document has it.",
        Level.EXTENSION,
        _rest_trailing_slash,
    ),
    Check(
        "model-ready",
        "GET v2/models/MODEL/ready and ModelReady say yes.",
        Level.REQUIRED,
        _rest_model_ready,
        _rpc_model_ready,
    ),
    Check(
        "model-metadata",
        "A model's metadata has name, platform, and its inputs and outputs with name, datatype and shape.",
        Level.REQUIRED,
        _rest_model,
        _rpc_model,
    ),
    Check(
        "model-version",
        "A version that the metadata names has readiness and metadata of its own.",
        Level.REQUIRED,
        _rest_versioned,
        _rpc_versioned,
    ),
)
