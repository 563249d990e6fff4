"""Open Inference Protocol v2 over REST, with JSON tensors: `POST /v2/models/{model}[/versions/{version}]/infer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from app.codec.facts import Parameters, make_request, refuse_facts_in_query, refuse_second_data_class
from app.codec.json_tensors import check_size, plain, tensor_from_json
from backends.oip import datatype
from router.engine import Engine
from router.errors import InvalidField, InvalidTensor, MalformedBody, UnknownModel, Unsupported
from router.model import ModelSpec, Tensor
from router.types import InferenceRequest, InferenceResponse

ROUTING = frozenset({"data_class", "deadline_ms", "binary_data_output"})
"""Parameters that are for us, not for the backend. So is `priority`, unless it is a number, which is Triton's own."""


class InputTensor(msgspec.Struct):
    """One input. `data` may be nested or flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: Parameters = {}


class RequestedOutput(msgspec.Struct):
    """One output that the client wants."""

    name: str
    parameters: Parameters = {}


class OipBody(msgspec.Struct):
    """The body of an inference request."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: Parameters = {}
    outputs: list[RequestedOutput] = []
    data_class: msgspec.Raw = msgspec.Raw(b"")


_decode_body = msgspec.json.Decoder(OipBody).decode


def decode(
    body: bytes,
    headers: Mapping[bytes, bytes],
    query: bytes,
    model: str,
    version: str | None,
    engine: Engine,
    arrived: float,
) -> tuple[InferenceRequest, tuple[str, ...]]:
    """Reads a request, and the names of the outputs that it asks for (empty: all).

    Routing facts travel in `parameters` (`data_class`, `deadline_ms`, `priority`) or in the headers that `/infer`
    knows.

    Raises:
        RouterError: A 4xx or 501 one.
    """
    if b"inference-header-content-length" in headers:
        raise Unsupported("Binary tensors are not supported; send JSON tensors (tritonclient: binary_data=False).")
    refuse_facts_in_query(query)
    spec = model_spec(engine, model, version)
    parsed = _parse(body)
    tensors = {tensor.name: _tensor(tensor, spec) for tensor in parsed.inputs}
    if len(tensors) != len(parsed.inputs):
        raise InvalidField("An input is given twice.", field="inputs")
    spec.check_inputs(tensors)
    wanted = tuple(output.name for output in parsed.outputs)
    for name in wanted:
        if name not in spec.outputs:
            known = ", ".join(spec.outputs)
            raise InvalidField(f"{model} has no output {name[:100]!r}; it has {known}.", field="outputs")
    priority = parsed.parameters.get("priority")
    if isinstance(priority, str):
        del parsed.parameters["priority"]
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
        parameters={name: value for name, value in parsed.parameters.items() if name not in ROUTING},
    )
    return request, wanted


def encode(response: InferenceResponse, wanted: tuple[str, ...]) -> bytes:
    """Writes an answer; the route that it took stands in its parameters."""
    route = response.route
    outputs = response.outputs if not wanted else {name: response.outputs[name] for name in wanted}
    return orjson.dumps(
        {
            "model_name": response.model.name,
            "model_version": response.model.version,
            "id": response.id,
            "parameters": {"backend": route.backend, "policy": route.policy, "degraded": route.degraded},
            "outputs": [
                {
                    "name": name,
                    "datatype": datatype(response.model.outputs[name].dtype),
                    "shape": tensor.shape,
                    "data": plain(tensor.reshape(-1)),
                }
                for name, tensor in outputs.items()
            ],
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def named_in(path: str) -> tuple[str, str | None]:
    """Model and version in the path of an inference request.

    Raises:
        UnknownModel: It is not such a path after all.
    """
    parts = path.split("/")
    if len(parts) == 5:  # "", v2, models, MODEL, infer
        return parts[3], None
    if len(parts) == 7 and parts[4] == "versions":
        return parts[3], parts[5]
    raise UnknownModel("The path must be /v2/models/MODEL/infer or /v2/models/MODEL/versions/VERSION/infer.")


def model_spec(engine: Engine, model: str, version: str | None) -> ModelSpec:
    """The model's spec.

    Raises:
        UnknownModel: There is no such model, or it has another version.
    """
    spec = engine.model(model).spec
    if version not in (None, spec.version):
        raise UnknownModel(f"{model} has no version {version!r}; it has {spec.version!r}.", field="version")
    return spec


def metadata(spec: ModelSpec) -> dict[str, Any]:
    """The model's metadata, as the protocol writes it."""

    def tensors(specs: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {"name": name, "datatype": datatype(tensor.dtype), "shape": tensor.shape} for name, tensor in specs.items()
        ]

    return {
        "name": spec.name,
        "versions": [spec.version],
        "platform": "hybrid-router",
        "inputs": tensors(spec.inputs),
        "outputs": tensors(spec.outputs),
    }


def _parse(body: bytes) -> OipBody:
    try:
        parsed = _decode_body(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The body is not an inference request: {str(error)[:300]}.") from error
    except RecursionError as error:
        raise MalformedBody("The body is nested too deeply.") from error
    refuse_second_data_class(body)
    if bytes(parsed.data_class):
        raise InvalidField("data_class belongs into parameters, or into the header X-Data-Class.", field="data_class")
    return parsed


def _tensor(tensor: InputTensor, spec: ModelSpec) -> Tensor:
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
    if "binary_data_size" in tensor.parameters:
        raise Unsupported("Binary tensors are not supported; send JSON tensors (tritonclient: binary_data=False).")
    array = tensor_from_json(tensor.data, declared.dtype, field)
    check_size(tensor.shape, array.size, field)
    if array.ndim > 1 and array.shape != tuple(tensor.shape):
        raise InvalidTensor(f"{field}.shape is {tensor.shape}, its data {list(array.shape)}.", field=field)
    return array.reshape(tensor.shape)


def _parameter(parameters: Parameters, name: str, kind: type) -> Any:
    value = parameters.get(name)
    if value is None or (isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)):
        return value
    raise InvalidField(
        f"parameters.{name} must be a {'number' if kind is float else 'string'}.", field=f"parameters.{name}"
    )
