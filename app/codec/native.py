"""`POST /infer`: JSON or an image file in, JSON with the route that was taken out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qs

import msgspec
import orjson

from app.codec.facts import Parameters, make_request, number, refuse_facts_in_query, refuse_second_data_class
from app.codec.json_tensors import plain, tensor_from_bytes, tensor_from_json
from app.codec.template import opened, shortest
from backends.image import FORMATS, check_header
from router.engine import Engine
from router.errors import InvalidField, InvalidTensor, MalformedBody, Outcome, UnsupportedMediaType
from router.model import ModelSpec, Tensor, TensorSpec
from router.types import EncodedImage, InferenceRequest, InferenceResponse, Payload

JSON = b"application/json"


class InferBody(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON body of `/infer`. Inputs stay text until the model's spec says what they are."""

    model: str
    inputs: dict[str, msgspec.Raw]
    parameters: Parameters = {}
    data_class: str | None = None
    deadline_ms: float | None = None
    priority: str | None = None
    id: str | None = None


class RawTensor(msgspec.Struct, forbid_unknown_fields=True):
    """A tensor as base64 of its little-endian elements in row-major order."""

    dtype: str
    shape: list[int]
    base64: bytes


_decode_body = msgspec.json.Decoder(InferBody).decode
_decode_raw_tensor = msgspec.json.Decoder(RawTensor).decode


def decode(
    body: bytes, headers: Mapping[bytes, bytes], query: bytes, engine: Engine, arrived: float
) -> InferenceRequest:
    """Reads a request: everything about it is checked here, against the models in force.

    Args:
        body: The whole body.
        headers: By lower-case name.
        query: The raw query string.
        engine: Knows the models and data classes.
        arrived: When the first byte came, monotonic seconds.

    Raises:
        RouterError: A 4xx one that names the field.
    """
    media_type = headers.get(b"content-type", JSON)
    if media_type != JSON:
        media_type = media_type.partition(b";")[0].strip().lower()
    if media_type == JSON:
        if query:
            refuse_facts_in_query(query)
        parsed = _parse(body)
        if "data_class" in parsed.parameters:  # where the Open Inference Protocol has it, and unheard here
            raise InvalidField(
                "data_class stands beside parameters here, not in them, or in the header X-Data-Class.",
                field="data_class",
            )
        spec = engine.model(parsed.model).spec
        tensors: dict[str, Tensor] = {}
        for name, raw in parsed.inputs.items():
            tensors[name] = _tensor(raw, spec.inputs.get(name), f"inputs.{name}")
        spec.check_inputs(tensors)
        payload: Payload = tensors
    else:
        if media_type.decode("latin-1") not in FORMATS:
            raise UnsupportedMediaType(
                f"Content-Type {media_type[:100].decode('latin-1')!r} is not accepted; "
                f"send application/json, or one of {', '.join(FORMATS)}."
            )
        parsed = _query(query)
        spec = engine.model(parsed.model).spec
        payload = _image(body, media_type.decode("latin-1"), spec)
    return make_request(
        spec,
        payload,
        engine,
        arrived,
        headers,
        id=parsed.id,
        data_class=parsed.data_class,
        deadline_ms=parsed.deadline_ms,
        priority=parsed.priority,
        parameters=parsed.parameters,
    )


def encode(response: InferenceResponse) -> bytes:
    """Writes an answer. Numbers that JSON does not have (NaN, infinities) are null."""
    route = response.route
    kinds: list[tuple[str, Outcome, str | None]] = []
    numbers: list[float | bytes] = []
    cost_usd, bytes_out = 0.0, 0
    for record in route.attempts:
        kinds.append((record.backend, record.outcome, record.error))
        numbers += (
            record.queue_s * 1000,
            record.network_s * 1000,
            record.compute_s * 1000,
            record.stages_s * 1000,
        )
        cost_usd += record.cost_usd
        bytes_out += record.bytes_out
    numbers += (route.latency_s * 1000, shortest(cost_usd), bytes_out)
    answer = orjson.dumps(
        {"id": response.id, "model": response.model.name, "outputs": response.outputs},
        default=plain,
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    template = _route(route.policy, route.backend, route.variant, route.degraded, route.reason, tuple(kinds))
    return answer[:-1] + template % tuple(numbers)


@lru_cache(maxsize=1024)
def _route(
    policy: str,
    backend: str,
    variant: str,
    degraded: bool,
    reason: str,
    kinds: tuple[tuple[str, Outcome, str | None], ...],
) -> bytes:
    """What is the same in many answers of the route that they took, with a place for each number."""
    facts = {"policy": policy, "backend": backend, "variant": variant, "degraded": degraded, "reason": reason}
    attempts = [
        opened({"backend": asked, "outcome": outcome.value, "error": error})
        + b'"queue_ms":%.3f,"network_ms":%.3f,"compute_ms":%.3f,"stages_ms":%.3f}'
        for asked, outcome, error in kinds
    ]
    times = b'],"latency_ms":%.3f,"cost_usd":%b,"bytes_out":%d}}'
    return b',"route":' + opened(facts) + b'"attempts":[' + b",".join(attempts) + times


def _parse(body: bytes) -> InferBody:
    try:
        parsed = _decode_body(body)
    except msgspec.ValidationError as error:
        field = str(error).partition("`$.")[2].rstrip("`") or _unknown_or_missing(str(error))
        raise MalformedBody(f"The body does not fit: {str(error)[:300]}.", field=field) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The body is not JSON: {str(error)[:300]}.") from error
    except RecursionError as error:
        raise MalformedBody("The body is nested too deeply.") from error
    refuse_second_data_class(body)
    return parsed


def _unknown_or_missing(message: str) -> str | None:
    """The field in `Object missing required field `x`` and `Object contains unknown field `x``."""
    return message.partition("field `")[2].rstrip("`") or None


def _tensor(raw: msgspec.Raw, spec: TensorSpec | None, field: str) -> Tensor:
    if spec is None:
        raise InvalidTensor(f"{field} is not an input of the model; GET /models lists its inputs.", field=field)
    text = bytes(raw)
    if not text.startswith(b"{"):
        return tensor_from_json(text, spec.dtype, field)
    try:
        tensor = _decode_raw_tensor(text)
    except msgspec.MsgspecError as error:
        raise InvalidTensor(
            f"{field} must be a nested list, or an object of dtype, shape and base64: {str(error)[:200]}.", field=field
        ) from error
    return tensor_from_bytes(tensor.base64, tensor.dtype, tensor.shape, field)


def _query(query: bytes) -> InferBody:
    try:
        given = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise InvalidField("The query has too many fields.", field="query") from None
    fields = {}
    for name, values in given.items():
        if len(set(values)) > 1:
            raise InvalidField(f"{name[:100]} is given twice in the query, with different values.", field=name[:100])
        fields[name] = values[0]
    if "model" not in fields:
        raise InvalidField("An image is sent to /infer?model=NAME; name the model in the query.", field="model")
    unknown = fields.keys() - {"model", "data_class", "deadline_ms", "priority", "id"}
    if unknown:
        raise InvalidField(f"The query has unknown fields: {', '.join(sorted(unknown))[:200]}.", field=min(unknown))
    deadline = fields.get("deadline_ms")
    return InferBody(
        model=fields["model"],
        inputs={},
        data_class=fields.get("data_class"),
        deadline_ms=None if deadline is None else number("deadline_ms", deadline),
        priority=fields.get("priority"),
        id=fields.get("id"),
    )


def _image(body: bytes, media_type: str, spec: ModelSpec) -> EncodedImage:
    if spec.image is None:
        raise UnsupportedMediaType(f"{spec.name} takes no images; send its tensors as application/json.")
    if not body:
        raise MalformedBody("The body is empty; it must be the image file.")
    image = EncodedImage(body, media_type)
    check_header(image, spec.image)
    return image
