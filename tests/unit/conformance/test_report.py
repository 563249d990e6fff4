"""What came of a conformance run, as it is told."""

from __future__ import annotations

import orjson
import pytest

from conformance.check import Check, Level, Row
from conformance.report import as_json, conforms, summary, table
from conformance.verdict import Status, Verdict

NEEDED, WISHED = Check("needed", "It is.", Level.REQUIRED), Check("wished", "It would be.", Level.EXTENSION)
PASS, FAIL = Verdict(Status.PASS, "a note"), Verdict(Status.FAIL, "it was not so")


@pytest.mark.parametrize(
    ("rows", "does"),
    [
        ([Row(NEEDED, PASS, None), Row(WISHED, FAIL, FAIL)], True),
        ([Row(NEEDED, FAIL, None), Row(WISHED, PASS, PASS)], False),
        ([Row(NEEDED, PASS, FAIL)], False),
        ([Row(NEEDED, Verdict(Status.NOT_TRIED), Verdict(Status.NOT_OFFERED))], True),
    ],
)
def test_only_what_is_required_decides(rows: list[Row], does: bool) -> None:
    assert conforms(rows) is does
    assert summary(rows).startswith("Conforms: " if does else "Does not conform (needed): ")


def test_the_table_has_a_sentence_for_what_did_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert table([Row(NEEDED, PASS, None), Row(WISHED, FAIL, Verdict(Status.NOT_OFFERED, "there is none"))]) == (
        "check   level      REST         gRPC\n"
        "needed  required   pass         -\n"
        "wished  extension  FAIL         not offered\n"
        "    REST: it was not so\n"
        "    gRPC: there is none"
    )


def test_json_has_it_all() -> None:
    document = orjson.loads(as_json([Row(NEEDED, FAIL, None)], {"url": "http://server"}))
    assert document == {
        "url": "http://server",
        "conforms": False,
        "checks": [
            {
                "check": "needed",
                "says": "It is.",
                "level": "required",
                "rest": {"status": "fail", "sentence": "it was not so"},
                "grpc": None,
            }
        ],
    }
