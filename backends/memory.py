"""How much memory a process may still take, by the machine and by its control group; and giving back what it freed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from router.errors import BackendUnavailable

KEPT_FREE_BYTES = 32 << 20
"""What must be left for everything else when a model has been loaded."""


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """What is left.

    Args:
        bytes: How much.
        bound: What bounds it, in words.
    """

    bytes: int
    bound: str


def free_memory(root: Path) -> FreeMemory | None:
    """The memory that can be taken without swapping or being killed: the least of machine and control groups.

    Args:
        root: The root of the file system with `proc` and `sys`.

    Returns:
        None where the kernel does not tell.
    """
    return min(_bounds(root), key=lambda memory: memory.bytes, default=None)


def check_room(name: str, stored_bytes: int, needed_bytes: int, root: Path, advice: str) -> None:
    """Holds what loading a model takes against the memory that is free.

    Args:
        name: The model file, for the sentence.
        stored_bytes: What it takes on disk.
        needed_bytes: What it is expected to take in memory.
        root: The root of the file system with `proc` and `sys`.
        advice: What to do if it does not fit; a sentence.

    Raises:
        BackendUnavailable: It would not fit.
    """
    free = free_memory(root)
    if free is not None and needed_bytes + KEPT_FREE_BYTES > free.bytes:
        raise BackendUnavailable(
            f"{name} does not fit: loading its {_mb(stored_bytes)} takes about {_mb(needed_bytes)}, "
            f"{_mb(KEPT_FREE_BYTES)} must stay free, and {_mb(free.bytes)} are {free.bound}. {advice}"
        )


def give_back() -> None:
    """Returns to the kernel what was freed: the C library would keep hundreds of megabytes after a large model."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the GNU C library's; others give back by themselves
    if trim is not None:
        trim(0)


def _bounds(root: Path) -> Iterator[FreeMemory]:
    available = _fields(root / "proc/meminfo").get("MemAvailable:")
    if available is not None:
        yield FreeMemory(available * 1024, "free on this machine")
    for group in _groups(root):
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            # What the kernel can drop from its cache of files counts as used, but is given back when it is needed.
            cached = _fields(group / "memory.stat").get("inactive_file", 0)
            yield FreeMemory(max(0, limit - used + cached), "left under the control group's limit")


def _groups(root: Path) -> Iterator[Path]:
    """The process's control group and those around it (version 2), innermost first."""
    top = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::/"):
            group = top / line.removeprefix("0::/")
            yield group
            while group != top:
                group = group.parent
                yield group


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file of lines `name number ...`."""
    lines = (line.split() for line in _text(path).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) >= 2 and words[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
