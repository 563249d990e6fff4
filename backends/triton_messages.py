"""What goes to a Triton server and comes back: requests, outputs, statistics, errors, in the words of the router."""

from __future__ import annotations

from typing import Any

from grpc import StatusCode
from tritonclient.grpc import service_pb2

from backends.grpc_call import RpcError
from backends.oip import datatype, decode_raw, encode_raw
from backends.server import Totals, fitting_shape, refuse_missing
from router.errors import (
    BackendError,
    BackendFailed,
    BackendLost,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
)
from router.model import ModelSpec, Tensor, Tensors
from router.ports import Call


def infer_request(call: Call, name: str, version: str, tensors: Tensors, seconds: float) -> Any:
    """A ModelInferRequest with raw contents; `seconds` bounds the time in the server's queue."""
    request = service_pb2.ModelInferRequest(id=call.request_id, model_name=name, model_version=version)
    for key, value in call.parameters.items():
        set_parameter(request.parameters[key], value)
    request.parameters["timeout"].int64_param = max(1, int(seconds * 1e6))
    for key, tensor in tensors.items():
        request.inputs.add(name=key, datatype=datatype(tensor.dtype), shape=tensor.shape)
        request.raw_input_contents.append(encode_raw(tensor))
    return request


def declared_outputs(response: Any, model: ModelSpec, label: str) -> dict[str, Tensor]:
    """The declared outputs.

    Raises:
        BackendFailed: They are not what the spec says.
    """
    outputs: dict[str, Tensor] = {}
    if len(response.outputs) != len(response.raw_output_contents):
        raise BackendFailed(f"{label} did not answer with raw contents.")
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        spec = model.outputs.get(output.name)
        if spec is None:
            continue
        shape = fitting_shape(output.name, spec, output.datatype, tuple(output.shape), label)
        outputs[output.name] = decode_raw(raw, spec.dtype, shape)
    refuse_missing(outputs, model, label)
    return outputs


def totals(statistics: Any) -> list[Totals]:
    """The totals of each version in a ModelStatisticsResponse."""
    stats = [(model.inference_count, model.inference_stats) for model in statistics.model_stats]
    return [
        Totals(s.success.count, rows, s.queue.ns, s.compute_input.ns + s.compute_infer.ns + s.compute_output.ns)
        for rows, s in stats
    ]


def survives_cancelling(server: Any) -> bool:
    """Whether a server survives that calls are cancelled, by its ServerMetadataResponse.

    In Triton before 2.59, a cancellation that meets the end of its inference can crash the whole server.
    """
    if server.name != "triton":
        return True
    try:
        major, minor = map(int, server.version.split(".")[:2])
    except ValueError:
        return False
    return (major, minor) >= (2, 59)


def translated(error: RpcError, label: str) -> BackendError:
    """A server's status as the router knows it."""
    code, sentence = error.code, error.detail.splitlines()
    detail = sentence[0] if sentence else code.name
    if code is StatusCode.DEADLINE_EXCEEDED:
        return BackendTimeout(f"{label} did not answer in time.")
    if code in (StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED):
        return BackendRejectedInput(f"{label} rejects the input: {detail}")
    if code is StatusCode.NOT_FOUND or (code is StatusCode.UNAVAILABLE and _was_never_begun(detail)):
        return BackendUnavailable(f"{label} is not served: {detail}")
    if code is StatusCode.UNAVAILABLE:
        return BackendLost(f"{label} was lost: {detail}")
    return BackendFailed(f"{label} failed with {code.name}: {detail}")


_NEVER_BEGUN = ("unknown model", "not ready", "shutting down", "exiting")
"""What Triton, and proxies before it, say of a request that no model has seen. A model that broke has the same code."""


def _was_never_begun(detail: str) -> bool:
    detail = detail.lower()
    return any(phrase in detail for phrase in _NEVER_BEGUN)


def set_parameter(parameter: Any, value: object) -> None:
    """Gives an InferParameter its value, as the kind that it is."""
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = str(value)
