"""Reads a Dockerfile and a .dockerignore, as far as this project's go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction, its continued lines joined; the flags are those before its value, as in `--from=build`."""

    name: str
    flags: dict[str, str]
    value: str


def parse(dockerfile: str) -> list[Instruction]:
    """The instructions of a Dockerfile, without comments."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    instructions = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.strip().partition(" ")
        flags = {}
        while flag := re.match(r"\s*--([\w-]+)=(\S+)\s+", rest):
            flags[flag[1]] = flag[2]
            rest = rest[flag.end() :]
        instructions.append(Instruction(name.upper(), flags, rest.strip()))
    return instructions


class Context:
    """The files that a builder is sent: those of a folder that its .dockerignore does not hold back.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rules = []
        for line in map(str.strip, (folder / ".dockerignore").read_text().splitlines()):
            if line and not line.startswith("#"):
                pattern = re.escape(line.removeprefix("!").strip("/"))
                pattern = pattern.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
                self._rules.append((re.compile(f"{pattern}(?:/.*)?"), line.startswith("!")))

    def sent(self, path: Path) -> bool:
        """Whether a path relative to the folder is sent. The last line that matches it or a parent decides."""
        verdicts = [kept for pattern, kept in self._rules if pattern.fullmatch(path.as_posix())]
        return not verdicts or verdicts[-1]

    def copies(self, source: str) -> Iterator[tuple[Path, Path]]:
        """What COPY takes from a source: each file, and where it goes relative to the destination.

        A folder's files go by their path below it. A file has no path below itself, so `.`: it *is* the destination,
        or lies in it under its own name where that ends with a slash.
        """
        for match in sorted(self._folder.glob(source)):
            for file in sorted(match.rglob("*")) if match.is_dir() else [match]:
                if file.is_file() and self.sent(file.relative_to(self._folder)):
                    yield file, file.relative_to(match)
