"""Open Inference Protocol v2 over REST: `POST /v2/models/{model}[/versions/{version}]/infer`.

A body is JSON, or JSON followed by raw tensors (the protocol's binary tensor data extension), in any mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import orjson

from app.codec.facts import Parameters, make_request, refuse_facts_in_query, refuse_second_data_class
from app.codec.json_tensors import check_size, plain, tensor_from_json
from app.codec.problem import Headers
from app.codec.raw_tensors import raw_content, tensor_from_raw
from app.codec.route_parameters import route_parameters_json
from app.oip_views import model_spec
from backends.oip import datatype
from router.engine import Engine
from router.errors import InvalidField, InvalidTensor, MalformedBody, UnknownModel, Unsupported
from router.model import ModelSpec, Tensor
from router.types import InferenceRequest, InferenceResponse

ROUTING: Final = frozenset({"data_class", "deadline_ms", "binary_data_output"})
"""Parameters that are for us, not for the backend. So is `priority`, unless it is a number, which is Triton's own."""

HEADER_LENGTH: Final = b"inference-header-content-length"
"""The header that says how long the JSON is, where raw tensors follow it."""

MOST_REMEMBERED_BYTES: Final = 2048
"""JSON before raw tensors is remembered up to this length, once it was read: two megabytes in all."""

Wanted = Mapping[str, bool]
"""The outputs that a client asks for, in order, and of each whether it is to come raw."""

_UNSAID: Final = msgspec.Raw(b"")
"""What stands for a field that is not there."""

_JSON: Final[Headers] = ((b"content-type", b"application/json"),)
_BINARY: Final = (b"content-type", b"application/octet-stream")


class InputParameters(msgspec.Struct):
    """What can be said of one input. `data_class` can not, and must not be overlooked."""

    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    shared_memory_region: msgspec.Raw = _UNSAID
    data_class: msgspec.Raw = _UNSAID


class OutputParameters(msgspec.Struct):
    """What can be said of one output."""

    binary_data: bool | None = None
    classification: msgspec.Raw = _UNSAID
    shared_memory_region: msgspec.Raw = _UNSAID
    data_class: msgspec.Raw = _UNSAID


class InputTensor(msgspec.Struct):
    """One input. `data` may be nested or flat, in row-major order; without it, the elements follow the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = _UNSAID
    parameters: InputParameters | None = None
    data_class: msgspec.Raw = _UNSAID


class RequestedOutput(msgspec.Struct):
    """One output that the client wants."""

    name: str
    parameters: OutputParameters | None = None
    data_class: msgspec.Raw = _UNSAID


class OipBody(msgspec.Struct):
    """The JSON of an inference request."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: Parameters = {}
    outputs: list[RequestedOutput] = []
    data_class: msgspec.Raw = _UNSAID


_decode_body = msgspec.json.Decoder(OipBody).decode


def decode(
    body: bytes,
    headers: Mapping[bytes, bytes],
    query: bytes,
    model: str,
    version: str | None,
    engine: Engine,
    arrived: float,
) -> tuple[InferenceRequest, Wanted]:
    """Reads a request, and which outputs it asks for in which form.

    Routing facts travel in `parameters` (`data_class`, `deadline_ms`, `priority`) or in the headers that `/infer`
    knows.

    Raises:
        RouterError: A 4xx or 501 one.
    """
    if query:
        refuse_facts_in_query(query)
    spec = model_spec(engine, model, version)
    length = headers.get(HEADER_LENGTH)
    if length is None:
        at = len(body)
        parsed = _parse(body)
    else:
        at = _header_length(length, body)
        parsed = (_parsed_before if at <= MOST_REMEMBERED_BYTES else _parse)(body[:at])
    tensors: dict[str, Tensor] = {}
    for tensor in parsed.inputs:
        _refuse_data_class(tensor)
        start, at = at, at + _binary_size(tensor, at, len(body), binary=length is not None)
        tensors[tensor.name] = _tensor(tensor, spec, body, start, at)
    if len(tensors) != len(parsed.inputs):
        raise InvalidField("An input is given twice.", field="inputs")
    if at != len(body):
        raise MalformedBody(f"{len(body) - at} bytes follow the last tensor that the JSON declares.")
    spec.check_inputs(tensors)
    priority = parsed.parameters.get("priority")
    request = make_request(
        spec,
        tensors,
        engine,
        arrived,
        headers,
        id=parsed.id or None,
        data_class=_parameter(parsed.parameters, "data_class", str),
        deadline_ms=_parameter(parsed.parameters, "deadline_ms", float),
        priority=priority if isinstance(priority, str) else None,
        parameters={
            name: value
            for name, value in parsed.parameters.items()
            if name not in ROUTING and (name != "priority" or not isinstance(value, str))
        },
    )
    return request, _wanted(parsed, spec)


def encode(response: InferenceResponse, wanted: Wanted) -> tuple[bytes, Headers]:
    """Writes an answer, and the headers that say in which form; the route that it took stands in its parameters."""
    raw: list[bytes | memoryview] = []
    outputs = [
        _raw_output(response, name, raw) if binary else _json_output(response, name) for name, binary in wanted.items()
    ]
    answer = orjson.dumps(
        {
            "model_name": response.model.name,
            "model_version": response.model.version,
            "id": response.id,
            "outputs": outputs,
        },
        default=plain,
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    document = b'%b,"parameters":%b}' % (answer[:-1], route_parameters_json(response.route))
    if not raw:
        return document, _JSON
    return b"".join((document, *raw)), (_BINARY, (HEADER_LENGTH, b"%d" % len(document)))


@lru_cache(maxsize=1024)
def named_in(path: str) -> tuple[str, str | None]:
    """Model and version in the path of an inference request.

    Raises:
        UnknownModel: It is not such a path after all.
    """
    parts = path.removesuffix("/").split("/")
    if len(parts) == 5:  # "", v2, models, MODEL, infer
        return parts[3], None
    if len(parts) == 7 and parts[4] == "versions":
        return parts[3], parts[5]
    raise UnknownModel("The path must be /v2/models/MODEL/infer or /v2/models/MODEL/versions/VERSION/infer.")


def _raw_output(response: InferenceResponse, name: str, raw: list[bytes | memoryview]) -> dict[str, Any]:
    tensor = response.outputs[name]
    content = raw_content(tensor)
    raw.append(content)
    return {
        "name": name,
        "datatype": datatype(response.model.outputs[name].dtype),
        "shape": tensor.shape,
        "parameters": {"binary_data_size": memoryview(content).nbytes},
    }


def _json_output(response: InferenceResponse, name: str) -> dict[str, Any]:
    tensor = response.outputs[name]
    return {
        "name": name,
        "datatype": datatype(response.model.outputs[name].dtype),
        "shape": tensor.shape,
        "data": tensor.reshape(-1),
    }


def _parse(body: bytes) -> OipBody:
    try:
        parsed = _decode_body(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The body is not an inference request: {str(error)[:300]}.") from error
    except RecursionError as error:
        raise MalformedBody("The body is nested too deeply.") from error
    refuse_second_data_class(body)
    if parsed.data_class is not _UNSAID:
        raise InvalidField("data_class belongs into parameters, or into the header X-Data-Class.", field="data_class")
    return parsed


@lru_cache(maxsize=1024)
def _parsed_before(body: bytes) -> OipBody:
    """The same, of JSON that raw tensors follow: of one client and model it often does not change at all."""
    return _parse(body)


def _header_length(length: bytes, body: bytes) -> int:
    """How long the JSON is, as the header says it.

    Raises:
        MalformedBody: That is not a length within the body.
    """
    if not length.isdigit() or len(length) > 18 or not 1 <= int(length) <= len(body):
        raise MalformedBody(
            f"Inference-Header-Content-Length is {length[:40].decode('latin-1')!r}; it must be the length of the JSON, "
            f"from 1 to the body's {len(body)} bytes."
        )
    return int(length)


def _binary_size(tensor: InputTensor, start: int, end: int, *, binary: bool) -> int:
    """How many of the bytes behind the JSON are this input's; 0 of one in JSON.

    Raises:
        MalformedBody: It claims bytes that are not there.
        InvalidField: It says what cannot be said of a tensor.
        Unsupported: It is not in the message at all.
    """
    parameters = tensor.parameters
    if parameters is None:
        return 0
    field = f"inputs.{tensor.name[:100]}"
    _check(field, parameters)
    size = parameters.binary_data_size
    if size is None:
        return 0
    if not binary:
        raise MalformedBody(
            f"{field} has binary_data_size, but no header Inference-Header-Content-Length says where the JSON ends."
        )
    if size > end - start:
        raise MalformedBody(f"{field} claims {size} bytes of binary data; {end - start} are left in the body.")
    if tensor.data is not _UNSAID:
        raise InvalidTensor(f"{field} has data beside binary_data_size; send one of the two.", field=field)
    return size


def _tensor(tensor: InputTensor, spec: ModelSpec, body: bytes, start: int, end: int) -> Tensor:
    declared = spec.inputs.get(tensor.name)
    field = f"inputs.{tensor.name[:100]}"
    if declared is None:
        raise InvalidTensor(
            f"{field} is not an input of {spec.name}, which takes {', '.join(spec.inputs)}.", field=field
        )
    if tensor.datatype != datatype(declared.dtype):
        raise InvalidTensor(
            f"{field} has datatype {tensor.datatype[:40]}; it must be {datatype(declared.dtype)}.", field=field
        )
    if tensor.parameters is not None and tensor.parameters.binary_data_size is not None:
        return tensor_from_raw(body, start, end, declared.dtype, tensor.shape, field)
    if declared.dtype == "bfloat16":
        raise InvalidTensor(f"{field} is BF16, which has no form in JSON; send it as binary data.", field=field)
    array = tensor_from_json(tensor.data, declared.dtype, field)
    check_size(tensor.shape, array.size, field)
    if array.ndim > 1 and array.shape != tuple(tensor.shape):
        raise InvalidTensor(f"{field}.shape is {tensor.shape}, its data {list(array.shape)}.", field=field)
    return array.reshape(tensor.shape)


def _wanted(parsed: OipBody, spec: ModelSpec) -> Wanted:
    """The outputs that are asked for: what one says of itself wins over what the request says of all.

    Raises:
        InvalidField: The model has no such output, or it cannot be had in this form.
        Unsupported: It is asked for in a way that is not spoken here.
    """
    default = parsed.parameters.get("binary_data_output", False)
    if not isinstance(default, bool):
        raise InvalidField("parameters.binary_data_output must be true or false.", field="parameters")
    wanted: dict[str, bool] = {}
    for output in parsed.outputs:
        name, parameters = output.name, output.parameters
        _refuse_data_class(output)
        if name not in spec.outputs:
            known = ", ".join(spec.outputs)
            raise InvalidField(f"{spec.name} has no output {name[:100]!r}; it has {known}.", field="outputs")
        binary = default
        if parameters is not None:
            _check(f"outputs.{name}", parameters)
            if parameters.classification is not _UNSAID:
                raise Unsupported(f"outputs.{name} asks for classification, which is not supported; take the tensor.")
            binary = default if parameters.binary_data is None else parameters.binary_data
        wanted[name] = binary
    if not wanted:
        wanted = dict.fromkeys(spec.outputs, default)
    for name, binary in wanted.items():
        if not binary and spec.outputs[name].dtype == "bfloat16":
            raise InvalidField(
                f"outputs.{name} is BF16, which has no form in JSON; ask for it with binary_data.", field="outputs"
            )
    return wanted


def _check(field: str, parameters: InputParameters | OutputParameters) -> None:
    """Refuses what is said of one tensor and must not be ignored."""
    _refuse_data_class(parameters)
    if parameters.shared_memory_region is not _UNSAID:
        raise Unsupported(f"{field} is in shared memory, which is not supported; send and take it in the message.")


def _refuse_data_class(part: InputTensor | RequestedOutput | InputParameters | OutputParameters) -> None:
    """Refuses a data class where none is read: unheard, it would protect nothing."""
    if part.data_class is not _UNSAID:
        raise InvalidField("data_class belongs into the request's parameters, not to a tensor.", field="data_class")


def _parameter(parameters: Parameters, name: str, kind: type) -> Any:
    value = parameters.get(name)
    if value is None or (isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)):
        return value
    raise InvalidField(
        f"parameters.{name} must be a {'number' if kind is float else 'string'}.", field=f"parameters.{name}"
    )
