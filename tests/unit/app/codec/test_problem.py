"""Errors as documents: RFC 9457 for our own routes, `{"error": …}` for the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.codec.problem import oip_error, problem
from router.errors import RouterError


def kinds(base: type[RouterError] = RouterError) -> Iterator[type[RouterError]]:
    """Every kind of error that there is."""
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


every_kind = pytest.mark.parametrize("kind", [*kinds()])


@every_kind
def test_the_members_of_rfc_9457(kind: type[RouterError]) -> None:
    document = problem(kind("What is wrong, and what to do.", field="inputs.x", extra={"known": ["a"]}))
    body = json.loads(document.body)
    assert body == {
        "type": f"urn:hybrid-router:error:{kind.code}",
        "title": kind.title,
        "status": kind.http_status,
        "detail": "What is wrong, and what to do.",
        "code": kind.code,
        "field": "inputs.x",
        "known": ["a"],
    }
    assert document.status == kind.http_status
    assert 400 <= document.status < 600
    assert (b"content-type", b"application/problem+json") in document.headers


@every_kind
def test_the_protocols_own_form(kind: type[RouterError]) -> None:
    document = oip_error(kind("Sentence.", field="inputs.x"))
    assert json.loads(document.body) == {"error": "Sentence."}
    assert document.status == kind.http_status
    assert (b"content-type", b"application/json") in document.headers


@every_kind
def test_no_field_no_member(kind: type[RouterError]) -> None:
    assert "field" not in json.loads(problem(kind("Sentence.")).body)


@pytest.mark.parametrize("describe", [problem, oip_error])
@given(st.floats(0, 1e6))
def test_retry_after_is_a_whole_number_of_seconds_and_at_least_one(describe: type, seconds: float) -> None:
    headers = dict(describe(RouterError("Later.", retry_after_s=seconds)).headers)
    retry_after = headers[b"retry-after"].decode()
    assert retry_after.isdigit()
    assert int(retry_after) >= max(1, seconds)
    assert int(retry_after) < seconds + 2


@every_kind
def test_other_headers_come_only_where_they_belong(kind: type[RouterError]) -> None:
    headers = dict(problem(kind("Sentence.")).headers)
    assert b"retry-after" not in headers
    assert (b"www-authenticate" in headers) == (kind.http_status == 401)


def test_each_code_belongs_to_one_status() -> None:
    statuses: dict[str, set[int]] = {}
    for kind in kinds():
        statuses.setdefault(kind.code, set()).add(kind.http_status)
    assert all(len(found) == 1 for found in statuses.values())
