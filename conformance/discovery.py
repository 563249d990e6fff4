"""Finding out what a server offers, before anything is checked.

Invariants:
- Models come from the repository's index where there is one, from `GET /v2/models` as KServe has it, or from the
  caller.
- A model whose metadata cannot be read is left out; the subject's must be readable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
import httpx
import orjson
from tritonclient.grpc import service_pb2 as pb

from conformance.rest import BINARY_ONLY, Rest, excerpt, json_of, model_of, model_path
from conformance.rpc import Rpc, rpc_model, said
from conformance.tensors import Model
from conformance.verdict import Ended, Fails


class Unreachable(Exception):
    """Nothing can be checked; the message is a sentence for the caller."""


def find_rest(http: httpx.Client, named: str | None) -> Rest:
    """What a server offers over REST.

    Args:
        http: A client whose base URL is the server's.
        named: The model to ask; found out by default.

    Raises:
        Unreachable: Nobody answers, no model can be found, or the subject's metadata cannot be read.
    """
    try:
        extensions = _extensions(http)
        names = _offered(http)
        if named is None and not names:
            raise Unreachable(f"{http.base_url} has no index of its models: name one with --model NAME.")
        models = dict(_described(http, dict.fromkeys([*([named] if named else []), *names])))
        if named is not None and named not in models:
            answer = http.get(model_path(Model(named, (), (), ())))
            raise Unreachable(f"The metadata of {named} cannot be read: {answer.status_code}: {excerpt(answer)}")
    except httpx.HTTPError as error:
        raise Unreachable(f"{http.base_url} does not answer: {error or type(error).__name__}.") from None
    offered = tuple(models.values())
    return Rest(http, extensions, offered, models[named] if named else _subject(http, extensions, offered))


def find_rpc(
    channel: grpc.Channel, address: str, timeout_s: float, metadata: Sequence[tuple[str, str]], rest: Rest
) -> Rpc:
    """What the same server offers over gRPC.

    Args:
        channel: The channel to it.
        address: Its address, for the sentence.
        timeout_s: The deadline of every call, seconds.
        metadata: What every call carries.
        rest: What it offers over REST.

    Raises:
        Unreachable: Nobody answers, or the subject's metadata cannot be read.
    """
    rpc = Rpc(channel, timeout_s, tuple(metadata), rest.models, rest.subject)
    models = {}
    for model in rest.models:
        try:
            models[model.name] = rpc_model(rpc.call("ModelMetadata", pb.ModelMetadataRequest(name=model.name)))
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise Unreachable(f"{address} does not answer gRPC: {said(error)}.") from None
            if model is rest.subject:
                raise Unreachable(f"The metadata of {model.name} cannot be read over gRPC: {said(error)}.") from None
    return Rpc(channel, timeout_s, tuple(metadata), tuple(models.values()), models[rest.subject.name])


def _extensions(http: httpx.Client) -> frozenset[str]:
    """Those that the server names; none where its metadata cannot be read, which a check tells."""
    with suppress(Ended, TypeError):
        return frozenset(json_of(http.get("/v2").content).get("extensions") or ())
    return frozenset()


def _offered(http: httpx.Client) -> list[str]:
    index = _json(http.post("/v2/repository/index", json={}))
    if isinstance(index, list):
        return [entry["name"] for entry in index if _names_a_model(entry)]
    listed = _json(http.get("/v2/models"))
    models = listed.get("models") if isinstance(listed, dict) else None
    return [name for name in models if isinstance(name, str)] if isinstance(models, list) else []


def _names_a_model(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and entry.get("state", "READY") in ("READY", "", None)
    )


def _json(response: httpx.Response) -> Any:
    if response.status_code == 200:
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(response.content)
    return None


def _described(http: httpx.Client, names: Sequence[str] | dict[str, None]) -> Iterator[tuple[str, Model]]:
    for name in names:
        response = http.get(model_path(Model(name, (), (), ())))
        if response.status_code == 200:
            with suppress(Fails, TypeError, AttributeError):
                yield name, model_of(json_of(response.content))


def _subject(http: httpx.Client, extensions: frozenset[str], models: tuple[Model, ...]) -> Model:
    """The model to ask: one that takes numbers and answers them, if there is one."""
    able = [model for model in models if model.inputs and model.outputs]
    if not able:
        raise Unreachable(
            f"{http.base_url} offers {', '.join(model.name for model in models) or 'no model'}, but no metadata says "
            "what a model takes and gives: requests cannot be made."
        )
    simple = [model for model in able if not model.datatypes & {"BYTES", *BINARY_ONLY}]
    for model in simple:
        with suppress(Exception):  # why it does not answer is told by the checks
            Rest(http, extensions, models, model).ask(model)
            return model
    return (simple or able)[0]
