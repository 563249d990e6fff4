"""What came of the checks, as a table for a terminal, as JSON, and as Markdown for documentation."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

import orjson

from conformance.check import Row
from conformance.verdict import Status, Verdict

NARROWEST = 60
INDENT = "    "


def conforms(rows: Sequence[Row]) -> bool:
    """Whether nothing failed that the protocol requires."""
    return not any(row.breaks_the_protocol for row in rows)


def table(rows: Sequence[Row]) -> str:
    """A line for each check, and under it a sentence for whatever did not pass."""
    width = max(len(row.check.name) for row in rows)
    columns = max(shutil.get_terminal_size().columns, NARROWEST)
    lines = [f"{'check':{width}}  {'level':9}  {'REST':11}  gRPC"]
    for row in rows:
        name, level = row.check.name, row.check.level.value
        lines.append(f"{name:{width}}  {level:9}  {_word(row.rest):11}  {_word(row.rpc)}".rstrip())
        for side, verdict in (("REST", row.rest), ("gRPC", row.rpc)):
            if verdict is not None and verdict.status is not Status.PASS and verdict.sentence:
                lines += textwrap.wrap(
                    f"{side}: {verdict.sentence}", columns, initial_indent=INDENT, subsequent_indent=INDENT
                )
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """The verdict in one sentence."""
    verdicts = [verdict for row in rows for verdict in (row.rest, row.rpc) if verdict is not None]
    counts = ", ".join(f"{sum(verdict.status is status for verdict in verdicts)} {status.value}" for status in Status)
    required = [row.check.name for row in rows if row.breaks_the_protocol]
    verdict = "Conforms" if not required else f"Does not conform ({', '.join(required)})"
    return f"{verdict}: {counts}."


def as_json(rows: Sequence[Row], about: dict[str, Any]) -> bytes:
    """The whole outcome.

    Args:
        rows: What came of the checks.
        about: What was asked: URL, address, model.
    """
    document = about | {
        "conforms": conforms(rows),
        "checks": [
            {
                "check": row.check.name,
                "says": row.check.says,
                "level": row.check.level.value,
                "rest": _fields(row.rest),
                "grpc": _fields(row.rpc),
            }
            for row in rows
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _fields(verdict: Verdict | None) -> dict[str, str] | None:
    return None if verdict is None else {"status": verdict.status.value, "sentence": verdict.sentence}


def _word(verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    word: str = verdict.status.value
    return word.upper() if verdict.status is Status.FAIL else word
