"""What a request says about itself: in the body or in headers, but never two things at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.codec.facts import MAX_DEADLINE_MS, make_request, number
from router.engine import Engine
from router.errors import InvalidField
from router.types import InferenceRequest
from tests.unit.app.codec.front import SPECS
from tests.unit.samples import rows

NOTHING: dict[str, Any] = {"id": None, "data_class": None, "deadline_ms": None, "priority": None, "parameters": {}}


def made(engine: Engine, headers: dict[str, str] | None = None, **facts: Any) -> InferenceRequest:
    named = {name.encode(): value.encode("latin-1") for name, value in (headers or {}).items()}
    return make_request(SPECS["one"], rows(0.5), engine, 50.0, named, **NOTHING | facts)


GIVEN = [("x-request-id", "id", "r1", "r2"), ("x-data-class", "data_class", "phi", "unclassified")]


@pytest.mark.parametrize(
    ("header", "field", "value", "other"), [*GIVEN, ("x-deadline-ms", "deadline_ms", "100", "200")]
)
def test_a_fact_may_stand_in_either_place_or_in_both_but_not_differ(
    engine: Engine, header: str, field: str, value: str, other: str
) -> None:
    in_body = float(value) if field == "deadline_ms" else value
    facts: dict[str, Any] = {field: in_body}
    expected = made(engine, **facts)
    for request in (made(engine, {header: value}), made(engine, {header: value}, **facts)):
        assert (request.data_class, request.deadline) == (expected.data_class, expected.deadline)
        assert field != "id" or request.id == value
    with pytest.raises(InvalidField, match="given in a header and elsewhere") as caught:
        made(engine, {header: other}, **facts)
    assert caught.value.field == field


def test_ids_that_are_made_differ(engine: Engine) -> None:
    ids = {made(engine).id for _ in range(100)}
    assert len(ids) == 100


@given(st.text(max_size=200))
def test_an_id_is_printable_and_short_or_refused(engine: Engine, id: str) -> None:
    if 1 <= len(id) <= 128 and id.isprintable():
        assert made(engine, id=id).id == id
        return
    with pytest.raises(InvalidField) as caught:
        made(engine, id=id)
    assert caught.value.field == "id"


@given(st.floats() | st.integers(-(10**400), 10**400))
def test_a_deadline_is_within_bounds_or_refused(engine: Engine, deadline_ms: float) -> None:
    if 0 < deadline_ms <= MAX_DEADLINE_MS:
        assert made(engine, deadline_ms=deadline_ms).deadline == 50.0 + deadline_ms / 1000
        return
    with pytest.raises(InvalidField) as caught:
        made(engine, deadline_ms=deadline_ms)
    assert caught.value.field == "deadline_ms"


@pytest.mark.parametrize("text", ["", "soon", "0x10", "1,5", "1_000", "nan", "inf", "-inf", "1e999", "--5", "\xb2"])
def test_a_header_that_is_no_number_is_refused(engine: Engine, text: str) -> None:
    with pytest.raises(InvalidField):
        made(engine, {"x-deadline-ms": text})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back(value: float) -> None:
    assert number("field", repr(value)) == value


@pytest.mark.parametrize("data_class", ["phl", "", "PHI", "phi ", "*"])
def test_a_misspelt_class_is_refused_wherever_it_stands(engine: Engine, data_class: str) -> None:
    for facts, headers in (({"data_class": data_class}, {}), ({}, {"x-data-class": data_class})):
        with pytest.raises(InvalidField) as caught:
            made(engine, headers, **facts)
        assert caught.value.field == "data_class"


def test_without_a_class_data_is_unclassified(engine: Engine) -> None:
    assert made(engine).data_class == "unclassified"
