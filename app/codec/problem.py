"""Errors as documents: RFC 9457 problem+json for our own routes, `{"error": …}` for the Open Inference Protocol."""

from __future__ import annotations

import math
from typing import NamedTuple

import orjson

from router.errors import RouterError

Headers = tuple[tuple[bytes, bytes], ...]
"""Names, lower-case, and values."""


class ErrorDocument(NamedTuple):
    """Status, body and headers of an answer that reports an error."""

    status: int
    body: bytes
    headers: Headers


def problem(error: RouterError) -> ErrorDocument:
    """The error as RFC 9457 has it; `code` is our stable name for it, `field` what it is about."""
    document = {
        "type": f"urn:hybrid-router:error:{error.code}",
        "title": error.title,
        "status": error.http_status,
        "detail": error.detail,
        "code": error.code,
        **({"field": error.field} if error.field else {}),
        **error.extra,
    }
    return ErrorDocument(error.http_status, orjson.dumps(document), _headers(error, b"application/problem+json"))


def oip_error(error: RouterError) -> ErrorDocument:
    """The error as the Open Inference Protocol has it."""
    return ErrorDocument(error.http_status, orjson.dumps({"error": error.detail}), _headers(error, b"application/json"))


def _headers(error: RouterError, content_type: bytes) -> Headers:
    headers = [(b"content-type", content_type)]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()))
    if error.http_status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return tuple(headers)
