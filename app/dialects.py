"""The two languages that inference requests are spoken in over HTTP: what they say, and how they are answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.codec import native, oip
from app.codec.problem import ErrorDocument, Headers, oip_error, problem
from router.engine import Engine
from router.errors import RouterError
from router.types import InferenceRequest, InferenceResponse

Answered = tuple[bytes, Headers]
"""The body of an answer, and its headers."""

JSON: Final[Headers] = ((b"content-type", b"application/json"),)


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """One of them.

    Args:
        read: Makes a request of path, query, headers, body and time of arrival, and of the engine that knows the
            models; also gives what `write` has to know of it. Raises a RouterError that is the caller's fault.
        write: Writes an answer.
        describe: Writes an error.
        compresses: Whether answers come compressed for those who ask for it.
    """

    read: Callable[[str, bytes, Mapping[bytes, bytes], bytes, float, Engine], tuple[InferenceRequest, Any]]
    write: Callable[[InferenceResponse, Any], Answered]
    describe: Callable[[RouterError], ErrorDocument]
    compresses: bool


def _read_native(
    path: str, query: bytes, headers: Mapping[bytes, bytes], body: bytes, arrived: float, engine: Engine
) -> tuple[InferenceRequest, None]:
    return native.decode(body, headers, query, engine, arrived), None


def _write_native(response: InferenceResponse, _: None) -> Answered:
    return native.encode(response), JSON


def _read_oip(
    path: str, query: bytes, headers: Mapping[bytes, bytes], body: bytes, arrived: float, engine: Engine
) -> tuple[InferenceRequest, oip.Wanted]:
    model, version = oip.named_in(path)
    return oip.decode(body, headers, query, model, version, engine, arrived)


NATIVE = Dialect(_read_native, _write_native, problem, compresses=False)
"""`POST /infer`."""

OIP = Dialect(_read_oip, oip.encode, oip_error, compresses=True)
"""`POST /v2/models/{model}[/versions/{version}]/infer`."""


def spoken_at(path: str) -> Dialect | None:
    """The dialect of inference requests that are posted to this path; None where there are none."""
    if path == "/infer":
        return NATIVE
    if path.startswith("/v2/models/") and path.endswith(("/infer", "/infer/")):
        return OIP
    return None
