"""Checks of what a server must refuse, and in which form.

Invariants:
- That something is refused, and said as `{"error": "..."}`, is required: the protocol asks for an error status.
- Which status that is, the protocol leaves open; what clients rely on is checked in manners.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc
import httpx
from tritonclient.grpc import service_pb2 as pb

from conformance.check import Check, Level
from conformance.rest import Rest, excerpt, json_of, model_path, plain_request
from conformance.rpc import Rpc, raw_request, refusal, said, typed_request
from conformance.tensors import DTYPES, Model, Spec, Tensor, a_version, sample, samples
from conformance.verdict import Fails, NotTried

NOWHERE = Model("no_such_model", (), (), ())
NO_VERSION = "987654"
VAST = 2**62
"""Times any other size it overflows 64 bits."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One wrong request.

    Attributes:
        name: The check's id.
        says: What is refused.
        rest: Sends it over REST.
        rpc: Sends it over gRPC, which raises `grpc.RpcError`; None where gRPC knows no such mistake.
    """

    name: str
    says: str
    rest: Callable[[Rest], httpx.Response] | None
    rpc: Callable[[Rpc], object] | None


def refused(response: httpx.Response, what: str = "") -> None:
    """Holds an answer to be an error in the protocol's form.

    Args:
        response: The answer.
        what: What should be refused, for the sentence, where the check's name does not say it.

    Raises:
        Fails: It is not.
    """
    prefix = f"{what}: " if what else ""
    if response.status_code < 400:
        raise Fails(f"{prefix}answered {response.status_code} as if it were right")
    try:
        error = json_of(response.content).get("error")
    except Fails:
        error = None
    if not isinstance(error, str) or not error:
        raise Fails(f'{prefix}{response.status_code} without an {{"error"}}: {excerpt(response)}')


def _malformed(rest: Rest) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return rest.http.post(f"{model_path(rest.subject)}/infer", content=b'{"inputs": [', headers=headers)


def _no_inputs_field(rest: Rest) -> httpx.Response:
    return rest.post({"id": "no inputs"})


def _wrong_datatype(model: Model) -> list[Tensor]:
    first, *others = model.inputs
    other = "INT32" if first.datatype != "INT32" else "FP64"
    return [sample(replace(first, datatype=other)), *map(sample, others)]


def _wrong_shape(model: Model) -> list[Tensor]:
    for place, spec in enumerate(model.inputs):
        fixed = [axis for axis, size in enumerate(spec.shape) if size > 0]
        if fixed:
            shape = tuple(size + (axis == fixed[-1]) for axis, size in enumerate(spec.shape))
            tensors = samples(model)
            tensors[place] = sample(Spec(spec.name, spec.datatype, shape))
            return tensors
    raise NotTried(f"{model.name} takes any shape")


def _unknown_input(model: Model) -> list[Tensor]:
    first, *others = samples(model)
    return [replace(first, name="no_such_input"), *others]


def _rest_with(make: Callable[[Model], list[Tensor]]) -> Callable[[Rest], httpx.Response]:
    return lambda rest: rest.post(plain_request(make(rest.subject)))


def _rpc_with(make: Callable[[Model], list[Tensor]]) -> Callable[[Rpc], object]:
    return lambda rpc: rpc.call("ModelInfer", raw_request(rpc.subject, make(rpc.subject)))


def _first(model: Model, tensors: list[Tensor], is_fit: Callable[[Tensor], bool], lack: str) -> int:
    """Which of the inputs a mistake can be made with; where none is, a right server would be called wrong.

    Raises:
        NotTried: None is; says what they lack.
    """
    for place, tensor in enumerate(tensors):
        if is_fit(tensor):
            return place
    raise NotTried(f"no input of {model.name} has {lack}")


def _with_elements(model: Model, tensors: list[Tensor]) -> int:
    """An input from which one element can be taken away."""
    return _first(model, tensors, lambda tensor: tensor.values.size > 0, "an element")


def _with_size(model: Model, tensors: list[Tensor]) -> int:
    """An input whose first size can be made wrong; beside a 0 any size means no elements, which may be right."""
    return _first(
        model, tensors, lambda tensor: tensor.values.ndim > 0 and tensor.values.size > 0, "a size other than 0"
    )


def _rest_count(rest: Rest) -> httpx.Response:
    tensors = samples(rest.subject)
    document = plain_request(tensors)
    document["inputs"][_with_elements(rest.subject, tensors)]["data"].pop()
    return rest.post(document)


def _rpc_count(rpc: Rpc) -> object:
    tensors = samples(rpc.subject)
    request = raw_request(rpc.subject, tensors)
    place = _with_elements(rpc.subject, tensors)
    size = DTYPES[tensors[place].datatype].itemsize
    request.raw_input_contents[place] = request.raw_input_contents[place][:-size]
    return rpc.call("ModelInfer", request)


def _rest_shaped(size: int) -> Callable[[Rest], httpx.Response]:
    def send(rest: Rest) -> httpx.Response:
        tensors = samples(rest.subject)
        document = plain_request(tensors)
        document["inputs"][_with_size(rest.subject, tensors)]["shape"][0] = size
        return rest.post(document)

    return send


def _rpc_shaped(size: int) -> Callable[[Rpc], object]:
    def send(rpc: Rpc) -> object:
        tensors = samples(rpc.subject)
        request = raw_request(rpc.subject, tensors)
        request.inputs[_with_size(rpc.subject, tensors)].shape[0] = size
        return rpc.call("ModelInfer", request)

    return send


def _rest_output(rest: Rest) -> httpx.Response:
    return rest.post(plain_request(samples(rest.subject), outputs=[{"name": "no_such_output"}]))


def _rpc_output(rpc: Rpc) -> object:
    return rpc.call("ModelInfer", raw_request(rpc.subject, samples(rpc.subject), outputs=["no_such_output"]))


def ask_nowhere(rest: Rest) -> httpx.Response:
    """Asks for an inference of a model that is not there."""
    return rest.post(plain_request(samples(rest.subject)), NOWHERE)


def _rpc_model(rpc: Rpc) -> object:
    return rpc.call("ModelInfer", raw_request(NOWHERE, samples(rpc.subject)))


def _rest_version(rest: Rest) -> httpx.Response:
    a_version(rest.subject)
    return rest.post(plain_request(samples(rest.subject)), version=NO_VERSION)


def _rpc_version(rpc: Rpc) -> object:
    a_version(rpc.subject)
    return rpc.call("ModelInfer", raw_request(rpc.subject, samples(rpc.subject), NO_VERSION))


def _mixed(rpc: Rpc) -> object:
    tensors = samples(rpc.subject)
    request = typed_request(rpc.subject, tensors)
    request.raw_input_contents.extend(tensor.raw() for tensor in tensors)
    return rpc.call("ModelInfer", request)


WRONG = (
    Wrong("malformed-json", "A body that is no JSON is refused.", _malformed, None),
    Wrong("inputs-left-out", "A request without the field inputs is refused.", _no_inputs_field, None),
    Wrong(
        "missing-input",
        "A request that lacks an input is refused.",
        _rest_with(lambda _: []),
        _rpc_with(lambda _: []),
    ),
    Wrong(
        "unknown-input",
        "An input of another name than the model's is refused.",
        _rest_with(_unknown_input),
        _rpc_with(_unknown_input),
    ),
    Wrong("unknown-output", "An output that the model does not have is refused.", _rest_output, _rpc_output),
    Wrong(
        "wrong-datatype",
        "A datatype that is not the model's is refused.",
        _rest_with(_wrong_datatype),
        _rpc_with(_wrong_datatype),
    ),
    Wrong(
        "wrong-shape",
        "A shape that the model does not allow is refused.",
        _rest_with(_wrong_shape),
        _rpc_with(_wrong_shape),
    ),
    Wrong("wrong-count", "Fewer elements than the shape says are refused.", _rest_count, _rpc_count),
    Wrong("vast-shape", "A shape that overflows 64 bits is refused.", _rest_shaped(VAST), _rpc_shaped(VAST)),
    Wrong("negative-shape", "A negative size is refused.", _rest_shaped(-1), _rpc_shaped(-1)),
    Wrong("unknown-model", "An inference of a model that is not there is refused.", ask_nowhere, _rpc_model),
    Wrong("unknown-version", "A version that is not there is refused.", _rest_version, _rpc_version),
    Wrong("mixed-contents", "Raw contents beside typed ones are refused.", None, _mixed),
)


def _rest_check(wrong: Wrong) -> Callable[[Rest], None] | None:
    send = wrong.rest
    return None if send is None else lambda rest: refused(send(rest))


def _rpc_check(wrong: Wrong) -> Callable[[Rpc], str] | None:
    send = wrong.rpc

    def check(rpc: Rpc) -> str:
        assert send is not None
        return refusal(lambda: send(rpc))

    return None if send is None else check


def _rest_no_metadata(rest: Rest) -> None:
    refused(rest.get(model_path(NOWHERE)), "metadata")


def _rpc_no_metadata(rpc: Rpc) -> str:
    return refusal(lambda: rpc.call("ModelMetadata", pb.ModelMetadataRequest(name=NOWHERE.name)), "metadata")


def _rest_not_ready(rest: Rest) -> None:
    response = rest.get(f"{model_path(NOWHERE)}/ready")
    if response.status_code == 200:
        raise Fails(f"{NOWHERE.name} is said to be ready")


def _rpc_not_ready(rpc: Rpc) -> str:
    try:
        ready = rpc.call("ModelReady", pb.ModelReadyRequest(name=NOWHERE.name)).ready
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise Fails(said(error)) from None
        return "NOT_FOUND"
    if ready:
        raise Fails(f"{NOWHERE.name} is said to be ready")
    return "ready is false"


CHECKS = (
    *(Check(wrong.name, wrong.says, Level.REQUIRED, _rest_check(wrong), _rpc_check(wrong)) for wrong in WRONG),
    Check(
        "unknown-metadata",
        "Metadata of a model that is not there is refused.",
        Level.REQUIRED,
        _rest_no_metadata,
        _rpc_no_metadata,
    ),
    Check("unknown-ready", "A model that is not there is not ready.", Level.REQUIRED, _rest_not_ready, _rpc_not_ready),
)
