"""Open Inference Protocol v2 over gRPC: `ModelInferRequest` in, `ModelInferResponse` out.

- The inputs of a request come in one form: all of them raw, or all of them as typed contents.
- Outputs go out raw, whatever the inputs were, as Triton's do.
- A request's deadline is never later than the one of the unary call that brought it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from app.codec.facts import FACT_HEADERS, MAX_DEADLINE_MS, by_name, make_request
from app.codec.oip import ROUTING
from app.codec.protobuf_tensors import tensor_from_contents
from app.codec.raw_tensors import tensor_from_raw
from app.codec.route_parameters import route_parameters
from app.oip_views import model_spec
from backends.oip import datatype, encode_raw
from backends.triton_messages import set_parameter
from router.engine import Engine
from router.errors import InvalidField, InvalidTensor, MalformedBody, Unsupported
from router.model import ModelSpec, Tensor
from router.types import InferenceRequest, InferenceResponse

Metadata = Iterable[tuple[str, str | bytes]]
"""What a call brings beside its messages; keys are lower-case."""

_FACT_KEYS: Final = {name.decode(): name for name in FACT_HEADERS}
_MAX_INT64 = 2**63 - 1


def fact_headers(metadata: Metadata) -> dict[bytes, bytes]:
    """The metadata that hold facts, in the form of HTTP headers.

    Raises:
        InvalidField: One is there twice, with different values.
    """
    found = [
        (_FACT_KEYS[key], value if isinstance(value, bytes) else value.encode())
        for key, value in metadata
        if key in _FACT_KEYS
    ]
    return by_name(found) if found else {}


_DATA_CLASS = b"\n\ndata_class"
"""The key of a parameter of that name, as protobuf writes it: field 1, ten bytes long."""


def parse(kind: Any, body: bytes) -> Any:
    """The message of a kind that the bytes are.

    Raises:
        MalformedBody: They are none.
        InvalidField: They name a data class twice, of which protobuf keeps the last without a word.
    """
    try:
        message = kind.FromString(body)
    except DecodeError as error:
        raise MalformedBody(f"The message is not a {kind.DESCRIPTOR.name}: {str(error)[:200]}.") from error
    if body.count(_DATA_CLASS) > 1 and message.ByteSize() != len(body):
        raise InvalidField("data_class is given twice.", field="data_class")
    return message


def decode(
    message: Any, headers: dict[bytes, bytes], engine: Engine, arrived: float, remaining_s: float | None
) -> tuple[InferenceRequest, tuple[str, ...]]:
    """Reads a ModelInferRequest, and the names of the outputs that it asks for (empty: all).

    Args:
        message: The ModelInferRequest.
        headers: Facts in the call's metadata, see `fact_headers`.
        engine: Knows the models and data classes.
        arrived: When it came, monotonic seconds.
        remaining_s: What is left of the call's own deadline, if it has one.

    Raises:
        RouterError: One that is the caller's fault.
    """
    spec = model_spec(engine, message.model_name, message.model_version or None)
    tensors = _tensors(message, spec)
    spec.check_inputs(tensors)
    wanted = tuple(_wanted(output, spec) for output in message.outputs)
    parameters = {name: _value(parameter, name) for name, parameter in message.parameters.items()}
    priority = parameters.get("priority")
    if isinstance(priority, str):  # a number is Triton's own
        del parameters["priority"]
    request = make_request(
        spec,
        tensors,
        engine,
        arrived,
        headers,
        id=message.id or None,
        data_class=_text(parameters.get("data_class")),
        deadline_ms=_number(parameters.get("deadline_ms")),
        priority=priority if isinstance(priority, str) else None,
        parameters={name: value for name, value in parameters.items() if name not in ROUTING},
    )
    if remaining_s is not None:
        end = arrived + min(remaining_s, MAX_DEADLINE_MS / 1000)
        request.deadline = end if request.deadline is None else min(end, request.deadline)
    return request, wanted


def encode(response: InferenceResponse, wanted: Sequence[str]) -> Any:
    """Writes an answer as a ModelInferResponse; the route that it took stands in its parameters."""
    model = response.model
    message = service_pb2.ModelInferResponse(model_name=model.name, model_version=model.version, id=response.id)
    for key, value in route_parameters(response.route).items():
        set_parameter(message.parameters[key], value)
    outputs = response.outputs if not wanted else {name: response.outputs[name] for name in wanted}
    for name, tensor in outputs.items():
        message.outputs.add(name=name, datatype=datatype(model.outputs[name].dtype), shape=tensor.shape)
        message.raw_output_contents.append(encode_raw(tensor))
    return message


def _tensors(message: Any, spec: ModelSpec) -> dict[str, Tensor]:
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise InvalidTensor(
            f"There are {len(message.inputs)} inputs and {len(raws)} raw_input_contents; each input has one, or none.",
            field="raw_input_contents",
        )
    tensors: dict[str, Tensor] = {}
    for position, tensor in enumerate(message.inputs):
        name = tensor.name
        if name in tensors:
            raise InvalidField(f"The input {name[:100]!r} is given twice.", field="inputs")
        tensors[name] = _tensor(tensor, raws[position] if raws else None, spec)
    return tensors


def _tensor(tensor: Any, raw: bytes | None, spec: ModelSpec) -> Tensor:
    field = f"inputs.{tensor.name[:100]}"
    declared = spec.inputs.get(tensor.name)
    if declared is None:
        raise InvalidTensor(
            f"{field} is not an input of {spec.name}, which takes {', '.join(spec.inputs)}.", field=field
        )
    if tensor.datatype != datatype(declared.dtype):
        raise InvalidTensor(
            f"{field} has datatype {tensor.datatype[:40]!r}; it must be {datatype(declared.dtype)}.", field=field
        )
    if tensor.parameters:
        _check_parameters(tensor.parameters, field)
    if raw is None:
        return tensor_from_contents(tensor.contents, declared.dtype, tensor.shape, field)
    if tensor.HasField("contents"):
        raise InvalidTensor(f"{field} has contents beside raw_input_contents; send one of the two.", field=field)
    return tensor_from_raw(raw, 0, len(raw), declared.dtype, tensor.shape, field)


def _wanted(output: Any, spec: ModelSpec) -> str:
    name: str = output.name
    if name not in spec.outputs:
        known = ", ".join(spec.outputs)
        raise InvalidField(f"{spec.name} has no output {name[:100]!r}; it has {known}.", field="outputs")
    if output.parameters:
        _check_parameters(output.parameters, f"outputs.{name}")
        if "classification" in output.parameters:
            raise Unsupported(f"outputs.{name} asks for classification, which is not supported; take the tensor.")
    return name


def _check_parameters(parameters: Any, field: str) -> None:
    """Refuses those of one tensor that must not be ignored."""
    if "data_class" in parameters:
        raise InvalidField(
            "data_class belongs into the parameters of the request, not of a tensor.", field="data_class"
        )
    if "shared_memory_region" in parameters:
        raise Unsupported(f"{field} is in shared memory, which is not supported; send and take it in the message.")


def _value(parameter: Any, name: str) -> str | int | float | bool:
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        raise InvalidField(f"parameters.{name[:100]} has no value.", field="parameters")
    value: str | int | float | bool = getattr(parameter, kind)
    if kind == "uint64_param" and value > _MAX_INT64:  # type: ignore[operator]
        raise InvalidField(f"parameters.{name[:100]} must be at most {_MAX_INT64}.", field="parameters")
    return value


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InvalidField("parameters.data_class must be a string.", field="parameters.data_class")


def _number(value: object) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise InvalidField("parameters.deadline_ms must be a number.", field="parameters.deadline_ms")
