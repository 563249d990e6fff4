"""Nothing depends on what the wall clock says: who reads it is listed here, with the reason.

A Raspberry Pi has no clock that runs without power: it may start in 1970, and leap by decades when the network comes.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "backends", "planning", "policies", "router")

READERS = {
    "app/gateway.py": "makes the process: the date that budgets count by, and times that only people read",
    "backends/onnx_cache.py": "which of the files goes first when there are too many: a wrong one is made again",
    "backends/versions.py": "whether a file is another than before: its times are held against each other only",
    "planning/bench/conduct.py": "when a measurement was made, for people to read",
}
"""Whoever reads the wall clock, and why that decides nothing."""

CLOCKS = {
    "time": {
        "time",
        "time_ns",
        "gmtime",
        "localtime",
        "ctime",
        "asctime",
        "strftime",
        "clock_gettime",
        "get_clock_info",
    },
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
TIMES_OF_FILES = {"st_mtime", "st_mtime_ns", "st_ctime", "st_atime", "getmtime", "getctime"}


def readings(source: str) -> list[str]:
    """Whatever in it asks what time it is, or when a file was changed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in CLOCKS.get(of, ()) or node.attr in TIMES_OF_FILES:
                found.append(f"{node.lineno}: {of}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [f"{node.lineno}: {name.name}" for name in node.names if name.name in CLOCKS["time"]]
    return found


def test_only_the_one_who_makes_the_process_reads_the_wall_clock() -> None:
    found = {}
    for file in (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))):
        if seen := readings(file.read_text(encoding="utf-8")):
            found[str(file.relative_to(ROOT))] = seen
    assert found.keys() == READERS.keys(), found


def test_the_search_finds_what_it_looks_for() -> None:
    assert readings("import time\nnow = time.time_ns()") == ["2: time.time_ns"]
    assert readings("from time import time") == ["1: time"]
    assert readings("import datetime\nday = datetime.date.today()") == ["2: date.today"]
    assert readings("from datetime import UTC, datetime\ndatetime.now(UTC)") == ["2: datetime.now"]
    assert readings("age = path.stat().st_mtime") == ["1: .st_mtime"]
    assert not readings("import time\nnow = time.monotonic()")
