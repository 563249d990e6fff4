"""Whose leftovers are whose: names that say which process made them, and whether that process still is."""

from __future__ import annotations

import os
from pathlib import Path


def mark() -> str:
    """This process's mark: its id, and when it began, since ids are used again."""
    return f"{os.getpid()}-{_began(os.getpid())}"


def is_gone(name: str, prefix: str) -> bool:
    """Whether a name is `PREFIX-MARK` or begins with `PREFIX-MARK-`, and the mark is of a process that is gone."""
    if not name.startswith(f"{prefix}-"):
        return False
    pid, _, rest = name.removeprefix(f"{prefix}-").partition("-")
    return pid.isdigit() and _began(int(pid)) != rest.partition("-")[0]


def _began(pid: int) -> str:
    """When a process began, in clock ticks since the machine did; empty where there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
