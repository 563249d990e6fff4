"""Checks of what load generators, repositories and orchestrators ask beyond the protocol's core."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import httpx
import orjson
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb

from conformance.check import Check, Level
from conformance.inference import agree
from conformance.rest import Rest, excerpt, model_path
from conformance.rpc import Rpc, raw_request, rpc_answer, said
from conformance.tensors import Model, samples
from conformance.verdict import Fails, NotOffered

ABSENT = (404, 405, 501)
"""Statuses of a path that a server does not have."""

PAUSES_S = (0.0, 0.05, 0.2, 0.5)
"""Between one look at the statistics and the next: Triton counts an inference only after it has answered it."""

SERVING = b"\x08\x01"
"""`grpc.health.v1.HealthCheckResponse` with status SERVING. For so few bytes no package is needed."""

LIST_SERVICES = b"\x3a\x00"
"""`grpc.reflection.v1.ServerReflectionRequest` with an empty `list_services`."""

SERVICE = b"inference.GRPCInferenceService"


def _have(rest: Rest, response: httpx.Response, extension: str) -> Any:
    """The JSON of an answer that a server need not have.

    Raises:
        Fails: It has none although it names the extension, or it is no JSON.
        NotOffered: It has none.
    """
    if response.status_code in ABSENT:
        sentence = f"{response.request.url.path} is {response.status_code}"
        if extension in rest.extensions:
            raise Fails(f"{sentence}, though the extensions name {extension}")
        raise NotOffered(sentence)
    if response.status_code != 200:
        raise Fails(f"{response.status_code}: {excerpt(response)}")
    return orjson.loads(response.content)


def _rest_config(rest: Rest) -> None:
    _config(_have(rest, rest.get(f"{model_path(rest.subject)}/config"), "model_configuration"), rest.subject)


def _rpc_config(rpc: Rpc) -> None:
    message = rpc.offered("ModelConfig", pb.ModelConfigRequest(name=rpc.subject.name)).config
    sides = {
        side: [
            {"name": it.name, "data_type": model_config_pb2.DataType.Name(it.data_type), "dims": list(it.dims)}
            for it in getattr(message, side)
        ]
        for side in ("input", "output")
    }
    _config({"name": message.name, "max_batch_size": message.max_batch_size} | sides, rpc.subject)


def _config(config: Mapping[str, Any], model: Model) -> None:
    if config.get("name") != model.name:
        raise Fails(f"'name' is {config.get('name')!r}")
    if type(config.get("max_batch_size")) is not int:
        raise Fails(f"'max_batch_size' is {config.get('max_batch_size')!r}, not a number")
    for side, specs in (("input", model.inputs), ("output", model.outputs)):
        tensors = config.get(side) or []
        if sorted(tensor["name"] for tensor in tensors) != sorted(spec.name for spec in specs):
            raise Fails(f"{side!r} has other names than the metadata: {[tensor['name'] for tensor in tensors]}")
        for tensor in tensors:
            if not str(tensor.get("data_type")).startswith("TYPE_"):
                raise Fails(f"{tensor['name']} has the data_type {tensor.get('data_type')!r}")
            if not all(type(size) is int for size in tensor["dims"]):
                raise Fails(f"{tensor['name']} has the dims {tensor['dims']!r}")


def _rest_statistics(rest: Rest) -> None:
    def count() -> int:
        answer = _have(rest, rest.get(f"{model_path(rest.subject)}/stats"), "statistics")
        return _statistics(answer["model_stats"], rest.subject)

    _rises(count, lambda: rest.ask(rest.subject))


def _rpc_statistics(rpc: Rpc) -> None:
    def count() -> int:
        answer = rpc.offered("ModelStatistics", pb.ModelStatisticsRequest(name=rpc.subject.name))
        if not answer.model_stats:
            raise Fails("no 'model_stats'")
        return sum(model.inference_count for model in answer.model_stats if model.name == rpc.subject.name)

    _rises(count, lambda: rpc.ask(rpc.subject))


def _statistics(models: Sequence[Mapping[str, Any]], model: Model) -> int:
    """How many inferences there were, over all versions."""
    found = [entry for entry in models if entry.get("name") == model.name]
    if not found:
        raise Fails(f"'model_stats' lacks {model.name}")
    for entry in found:
        success = entry["inference_stats"]["success"]
        numbers = [entry["inference_count"], entry["execution_count"], success["count"], success["ns"]]
        if not all(type(number) is int for number in numbers):
            raise Fails(f"counts are not numbers: {numbers}")
        if not isinstance(entry.get("version"), str):
            raise Fails(f"'version' is {entry.get('version')!r}, not a text")
    return sum(entry["inference_count"] for entry in found)


def _rises(count: Callable[[], int], infer: Callable[[], object]) -> None:
    before = count()
    infer()
    for pause_s in PAUSES_S:
        time.sleep(pause_s)
        if count() > before:
            return
    raise Fails(f"'inference_count' is {before} before an inference, and still is a while after it")


def _rest_index(rest: Rest) -> str:
    entries = _have(rest, rest.http.post("/v2/repository/index", json={}), "model_repository")
    return _index([entry["name"] for entry in entries], rest.subject)


def _rpc_index(rpc: Rpc) -> str:
    answer = rpc.offered("RepositoryIndex", pb.RepositoryIndexRequest())
    return _index([model.name for model in answer.models], rpc.subject)


def _index(names: Sequence[str], model: Model) -> str:
    if model.name not in names:
        raise Fails(f"the index lacks {model.name}; it has {', '.join(names)}")
    return ", ".join(dict.fromkeys(names))


def _stream(rpc: Rpc) -> None:
    tensors = samples(rpc.subject)
    wrong = raw_request(rpc.subject, tensors, id="wrong")
    wrong.raw_input_contents[0] += b"0"
    requests = [raw_request(rpc.subject, tensors, id="one"), wrong, raw_request(rpc.subject, tensors, id="two")]
    answers, errors = {}, 0
    try:
        for message in rpc.call("ModelStreamInfer", iter(requests)):
            if message.error_message:
                errors += 1
            elif message.infer_response.outputs:
                answers[message.infer_response.id] = rpc_answer(message.infer_response).outputs
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise NotOffered(error.details() or "UNIMPLEMENTED") from None
        raise Fails(f"the stream ended with {said(error)}") from None
    if answers.keys() != {"one", "two"}:
        raise Fails(f"requests 'one' and 'two' of a stream were right; answered: {', '.join(answers) or 'none'}")
    if errors != 1:
        raise Fails(f"one request of a stream was wrong; {errors} error messages came")
    agree(lambda: answers["one"], lambda: rpc.ask(rpc.subject).outputs)


def _raw_unary(rpc: Rpc, method: str) -> bytes:
    try:
        answer: bytes = rpc.channel.unary_unary(method)(b"", timeout=rpc.timeout_s, metadata=rpc.metadata)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise NotOffered(error.details() or "UNIMPLEMENTED") from None
        raise
    return answer


def _health(rpc: Rpc) -> None:
    answer = _raw_unary(rpc, "/grpc.health.v1.Health/Check")
    if answer != SERVING:
        raise Fails(f"the status is not SERVING: {answer!r}")


def _reflection(rpc: Rpc) -> str:
    for version in ("v1", "v1alpha"):
        method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        call = rpc.channel.stream_stream(method)
        try:
            answers = list(call(iter([LIST_SERVICES]), timeout=rpc.timeout_s, metadata=rpc.metadata))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                continue
            raise
        if SERVICE not in b"".join(answers):
            raise Fails(f"{SERVICE.decode()} is not among the services")
        return version
    raise NotOffered("UNIMPLEMENTED")


CHECKS = (
    Check(
        "model-config",
        "A model's configuration has max_batch_size, and inputs and outputs with data_type and dims.",
        Level.EXTENSION,
        _rest_config,
        _rpc_config,
    ),
    Check(
        "statistics",
        "A model's statistics count each inference, in numbers and not in texts.",
        Level.EXTENSION,
        _rest_statistics,
        _rpc_statistics,
    ),
    Check("repository-index", "The repository's index lists the models.", Level.EXTENSION, _rest_index, _rpc_index),
    Check(
        "stream",
        "A stream answers each right request by its id and a wrong one with an error message, and goes on.",
        Level.EXTENSION,
        None,
        _stream,
    ),
    Check("grpc-health", "grpc.health.v1 says SERVING.", Level.EXTENSION, None, _health),
    Check("grpc-reflection", "Reflection lists the inference service.", Level.EXTENSION, None, _reflection),
)
