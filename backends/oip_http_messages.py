"""What goes to an Open Inference Protocol server over REST and comes back, in the words of the router."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from backends.oip import datatype, decode_raw, encode_raw
from backends.oip_http_channel import Answer
from backends.oip_json import from_json, to_json
from backends.server import Totals, fitting_shape, refuse_missing
from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    Overloaded,
)
from router.model import ModelSpec, Tensor, Tensors
from router.ports import Call
from router.types import UNCLASSIFIED

HEADER_LENGTH: Final = "inference-header-content-length"
"""How long the JSON at the beginning of a body is, where raw tensors follow it."""

MAX_DEADLINE_MS = 600_000.0
"""The longest deadline that a gateway takes; whoever waits longer loses nothing by saying so little."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a server says that it can do beyond the protocol's core.

    Args:
        binary: It takes and gives raw tensors after the JSON.
        timeout: It drops requests from its queue after their `timeout` parameter.
        statistics: It counts what it has served, and how long that took.
        configuration: It tells a model's configuration.
    """

    binary: bool = False
    timeout: bool = False
    statistics: bool = False
    configuration: bool = False


class _Server(msgspec.Struct, frozen=True):
    extensions: list[str] | None = None


class _Config(msgspec.Struct, frozen=True):
    max_batch_size: int = 0


class _Duration(msgspec.Struct, frozen=True):
    count: int = 0
    ns: int = 0


class _Counted(msgspec.Struct, frozen=True):
    success: _Duration = _Duration()
    queue: _Duration = _Duration()
    compute_input: _Duration = _Duration()
    compute_infer: _Duration = _Duration()
    compute_output: _Duration = _Duration()


class _Version(msgspec.Struct, frozen=True):
    inference_count: int = 0
    inference_stats: _Counted = _Counted()


class _Statistics(msgspec.Struct, frozen=True):
    model_stats: list[_Version] = []


class _Output(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, Any] | None = None


class _Inference(msgspec.Struct, frozen=True):
    outputs: list[_Output]


def read_extensions(body: bytes) -> Extensions:
    """What `GET /v2` says. One that says nothing that can be understood gets the protocol's core."""
    try:
        named = set(msgspec.json.decode(body, type=_Server).extensions or ())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        named = set()
    return Extensions(
        binary="binary_tensor_data" in named,
        timeout="schedule_policy" in named,
        statistics="statistics" in named,
        configuration="model_configuration" in named,
    )


def read_max_rows(body: bytes) -> int:
    """The rows that a model's configuration lets a request have; 0 is any number."""
    try:
        return max(0, msgspec.json.decode(body, type=_Config).max_batch_size)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0


def read_totals(body: bytes) -> list[Totals]:
    """The totals of each version in a model's statistics.

    Raises:
        BackendFailed: They are none.
    """
    try:
        statistics = msgspec.json.decode(body, type=_Statistics)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BackendFailed(f"The server's statistics cannot be read: {str(error)[:100]}") from error
    stats = [(version.inference_count, version.inference_stats) for version in statistics.model_stats]
    return [
        Totals(s.success.count, rows, s.queue.ns, s.compute_input.ns + s.compute_infer.ns + s.compute_output.ns)
        for rows, s in stats
    ]


def inference(call: Call, tensors: Tensors, extensions: Extensions, seconds: float) -> tuple[bytes, dict[str, str]]:
    """The body of a request, and its headers.

    The facts of the request go along in the headers of our own front: a server that is no gateway of ours does not
    know them, and one that is must not take data of a class for data of none.

    Args:
        call: What to infer.
        tensors: The inputs.
        extensions: What the server understands.
        seconds: How much time the server has.

    Raises:
        BackendRejectedInput: The server takes JSON only, and JSON cannot hold the inputs.
    """
    parameters = {name: value for name, value in call.parameters.items() if name != "binary_data_output"}
    if extensions.timeout:
        parameters["timeout"] = max(1, int(seconds * 1e6))
    if extensions.binary:
        parameters["binary_data_output"] = True
    headers = {
        "x-deadline-ms": f"{min(MAX_DEADLINE_MS, max(1.0, seconds * 1000)):.3f}",
        "x-priority": call.priority.name.lower(),
    }
    if call.data_class != UNCLASSIFIED:
        headers["x-data-class"] = call.data_class
    inputs, raws = [], []
    for name, tensor in tensors.items():
        described: dict[str, Any] = {"name": name, "shape": tensor.shape, "datatype": datatype(tensor.dtype)}
        if extensions.binary:
            raw = encode_raw(tensor)
            raws.append(raw)
            described["parameters"] = {"binary_data_size": len(raw)}
        else:
            described["data"] = to_json(tensor, name)
        inputs.append(described)
    try:
        body = orjson.dumps(
            {"id": call.request_id, "parameters": parameters, "inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY
        )
    except orjson.JSONEncodeError as error:
        raise BackendRejectedInput(f"The request cannot be written as JSON: {error}") from error
    if not extensions.binary:
        return body, headers | {"content-type": "application/json"}
    headers |= {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(body))}
    return b"".join((body, *raws)), headers


def read_outputs(answer: Answer, model: ModelSpec, label: str) -> dict[str, Tensor]:
    """The declared outputs of an answer.

    Raises:
        BackendFailed: They are not what the spec says, or the answer is no answer.
    """
    text, at = _split(answer, label)
    try:
        parsed = msgspec.json.decode(text, type=_Inference)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BackendFailed(f"{label} answered what the protocol does not know: {str(error)[:100]}") from error
    outputs: dict[str, Tensor] = {}
    for output in parsed.outputs:
        size = (output.parameters or {}).get("binary_data_size")
        begin = at
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(answer.body) - at:
                raise BackendFailed(f"{label} answered fewer bytes than it says.")
            at += size
        spec = model.outputs.get(output.name)
        if spec is None:
            continue
        shape = fitting_shape(output.name, spec, output.datatype, tuple(output.shape), label)
        if size is None:
            outputs[output.name] = from_json(bytes(output.data), spec.dtype, shape, output.name)
        else:
            outputs[output.name] = decode_raw(answer.body[begin:at], spec.dtype, shape)
    refuse_missing(outputs, model, label)
    return outputs


def refused(answer: Answer, label: str) -> BackendError:
    """What an answer that is not 200 means."""
    status = answer.status
    detail = _said(answer)
    if status in (404, 503):
        return BackendUnavailable(f"{label} cannot be had: {detail}")
    if status == 401:
        return BackendUnavailable(f"The server of {label} asks for a key, or for another one: {detail}")
    if status == 429:
        return Overloaded(f"{label} has too much to do: {detail}", retry_after_s=_retry_after(answer))
    if status in (408, 504):
        return BackendTimeout(f"{label} did not answer in time: {detail}")
    if 400 <= status < 500 and status != 405:
        return BackendRejectedInput(f"{label} rejects the input: {detail}")
    return BackendFailed(f"{label} failed with {status}: {detail}")


def _split(answer: Answer, label: str) -> tuple[bytes, int]:
    """The JSON of an answer, and where the raw tensors begin."""
    length = answer.headers.get(HEADER_LENGTH)
    if length is None:
        return answer.body, len(answer.body)
    if not (length.isascii() and length.isdigit() and len(length) < 18 and int(length) <= len(answer.body)):
        raise BackendFailed(f"{label} says that its answer's header is {length[:40]!r} bytes long, which it is not.")
    return answer.body[: int(length)], int(length)


def _said(answer: Answer) -> str:
    """The sentence of a refusal: of the protocol's errors, of a problem document, or of whatever it is."""
    text: object = None
    try:
        document = msgspec.json.decode(answer.body)
        if isinstance(document, dict):
            text = document.get("error") or document.get("detail")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = answer.body[:300].decode("utf-8", "replace")
    lines = str(text or f"HTTP {answer.status}").splitlines() or [""]
    return lines[0][:300]


def _retry_after(answer: Answer) -> float | None:
    """Seconds after which the server says that it may be asked again; None for a date, or for nothing."""
    header = answer.headers.get("retry-after", "")
    return float(header) if header.isascii() and header.isdigit() and len(header) < 8 else None
