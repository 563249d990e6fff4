"""What a request says about itself beside its tensors: id, data class, deadline, priority.

In the body, the query or headers.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar
from urllib.parse import unquote

import msgspec

from router.engine import Engine
from router.errors import InvalidField, MalformedBody
from router.model import ModelSpec
from router.types import InferenceRequest, Payload, Priority, nbytes

T = TypeVar("T")

Parameters = dict[str, str | bool | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float]
"""What a request tells the backend that answers it; numbers are those that protobuf has."""

MAX_ID_LENGTH = 128
MAX_DEADLINE_MS = 600_000.0

_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)

_ESCAPED = re.compile(rb"\\u00[567]")
"""The beginning of an escape that may stand for a letter of `data_class`."""

_PRIORITIES = {priority.name.lower(): priority for priority in Priority}

_boot = os.urandom(4).hex()
_counter = itertools.count(1)


def make_request(
    spec: ModelSpec,
    payload: Payload,
    engine: Engine,
    arrived: float,
    headers: Mapping[bytes, bytes],
    *,
    id: str | None,
    data_class: str | None,
    deadline_ms: float | None,
    priority: str | None,
    parameters: Mapping[str, object],
) -> InferenceRequest:
    """The request, its facts taken from where they are given and checked.

    Args:
        spec: Its model.
        payload: Its payload, checked.
        engine: Knows the data classes.
        arrived: When its first byte came, monotonic seconds.
        headers: May hold `x-request-id`, `x-data-class`, `x-deadline-ms` and `x-priority`.
        id: From body or query, or None.
        data_class: Likewise.
        deadline_ms: Likewise.
        priority: Likewise: `low`, `normal` or `high`.
        parameters: For the backend.

    Raises:
        InvalidField: A fact that is not acceptable, or given twice with different values.
    """
    request_id = id
    if not headers.keys().isdisjoint(FACT_HEADERS):
        given = {fact: headers[name].decode("latin-1") for name, fact in FACT_HEADERS.items() if name in headers}
        if "id" in given:
            request_id = _once("id", id, given["id"])
        if "data_class" in given:
            data_class = _once("data_class", data_class, given["data_class"])
        if "deadline_ms" in given:
            deadline_ms = _once("deadline_ms", deadline_ms, number("X-Deadline-Ms", given["deadline_ms"]))
        if "priority" in given:
            priority = _once("priority", priority, given["priority"])
    return InferenceRequest(
        id=f"{_boot}-{next(_counter):x}" if request_id is None else _checked_id(request_id),
        model=spec.name,
        payload=payload,
        payload_bytes=nbytes(payload),
        data_class=engine.data_class(data_class),
        arrived=arrived,
        deadline=None if deadline_ms is None else arrived + _checked_deadline(deadline_ms) / 1000,
        priority=Priority.NORMAL if priority is None else _priority(priority),
        parameters=parameters,
    )


FACT_HEADERS = {
    b"x-request-id": "id",
    b"x-data-class": "data_class",
    b"x-deadline-ms": "deadline_ms",
    b"x-priority": "priority",
}


def by_name(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by lower-case name.

    Raises:
        InvalidField: One that holds a fact is there twice, with different values.
    """
    named = dict(headers)
    if len(named) != len(headers):
        for name, value in headers:
            if name in FACT_HEADERS and named[name] != value:
                field = FACT_HEADERS[name]
                raise InvalidField(f"The header {name.decode()} is given twice, with other values.", field=field)
    return named


def refuse_facts_in_query(query: bytes) -> None:
    """Refuses a query that names a fact where facts are read from the body and the headers.

    Raises:
        InvalidField: It does; to ignore a data class would be to lose its protection.
    """
    named = {pair.partition("=")[0] for pair in unquote(query.decode("latin-1")).split("&")}
    for field in named & {*FACT_HEADERS.values()}:
        raise InvalidField(f"{field} is read from the body or from headers here, not from a query.", field=field)


def refuse_second_data_class(body: bytes) -> None:
    """Refuses a body in which an object names its data class twice.

    JSON lets readers take either, and so two could disagree about what may leave the site. Bodies in which one of its
    letters may be escaped are looked at too.

    Args:
        body: JSON that its own decoder has accepted.

    Raises:
        InvalidField: One does.
        MalformedBody: It is nested too deeply, or not JSON where that decoder did not look.
    """
    if body.count(b'"data_class"') > 1 or (b"\\u00" in body and _ESCAPED.search(body)):
        try:
            json.loads(body, object_pairs_hook=_with_one_data_class, parse_int=float)
        except RecursionError:
            raise MalformedBody("The body is nested too deeply.") from None
        except ValueError as error:  # what the body's own decoder passes over is not looked at there
            raise MalformedBody(f"The body is not JSON: {str(error)[:300]}.") from error


def _with_one_data_class(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if [name for name, _ in pairs].count("data_class") > 1:
        raise InvalidField("data_class is given twice.", field="data_class")
    return dict(pairs)


def number(field: str, text: str) -> float:
    """A number from a header or a query.

    Raises:
        InvalidField: It is none.
    """
    if not _NUMBER.fullmatch(text):
        raise InvalidField(f"{field} must be a number, not {text[:40]!r}.", field=field)
    return float(text)


def _once(field: str, elsewhere: T | None, in_header: T) -> T:
    """The one that is given. Two that differ are an error: neither may quietly lose."""
    if elsewhere is not None and elsewhere != in_header:
        raise InvalidField(f"{field} is given in a header and elsewhere, with another value.", field=field)
    return in_header


def _checked_deadline(deadline_ms: float) -> float:
    if not 0 < deadline_ms <= MAX_DEADLINE_MS:  # which NaN is not either
        raise InvalidField(f"deadline_ms must be above 0 and at most {MAX_DEADLINE_MS:.0f}.", field="deadline_ms")
    return deadline_ms


def _priority(name: str) -> Priority:
    priority = _PRIORITIES.get(name)
    if priority is None:
        raise InvalidField(f"priority must be one of {', '.join(_PRIORITIES)}, not {name[:40]!r}.", field="priority")
    return priority


def _checked_id(given: str) -> str:
    if not given or len(given) > MAX_ID_LENGTH or not given.isprintable():
        raise InvalidField(f"id must have 1 to {MAX_ID_LENGTH} printable characters.", field="id")
    return given
