"""Writes down which wheel of each locked runtime dependency a Raspberry Pi installs: `python deploy/arm64/wheels.py`.

A lock file has the hashes of all of a version's files, and not their names, so that it cannot say by itself whether one
of them runs on 64-bit Arm. The index can: `make lock` asks it, through the resolver, and this keeps the name and the
hash of the best file for each Python. tests/unit/test_arm64_wheels.py then holds table and lock together, offline.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
TABLE = Path(__file__).with_name("wheels.json")

PYTHONS = ((3, 11), (3, 12), (3, 13))
GLIBC = 36
"""The minor version of the C library in Debian 12, the older of the two that a Raspberry Pi 5 runs."""

OLDEST_GLIBC = 17
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(GLIBC, OLDEST_GLIBC - 1, -1)] + ["manylinux2014_aarch64"]


def tags(python: tuple[int, int]) -> Iterator[Tag]:
    """What wheels that run there are tagged with, best first."""
    yield from cpython_tags(python, platforms=PLATFORMS)
    yield from compatible_tags(python, interpreter=f"cp{python[0]}{python[1]}", platforms=PLATFORMS)


def environment(python: tuple[int, int]) -> dict[str, str]:
    """What the markers of requirements ask for, as it is there."""
    version = f"{python[0]}.{python[1]}"
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "aarch64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{version}.0",
        "python_version": version,
        "sys_platform": "linux",
    }


def applies(marker: str | None, python: tuple[int, int]) -> bool:
    """Whether a requirement with this marker is installed there."""
    return marker is None or Marker(marker).evaluate(environment(python))


def name_of(wheel: dict[str, Any]) -> str:
    """A wheel's file name, by its name or else its address."""
    return str(wheel.get("name") or wheel["url"].rpartition("/")[2])


def best(wheels: list[dict[str, Any]], python: tuple[int, int]) -> tuple[str, str] | None:
    """File name and SHA-256 of the wheel that is installed there, or None if none runs there."""
    order = {tag: rank for rank, tag in enumerate(tags(python))}
    ranked = [
        (min(order[tag] for tag in parse_wheel_filename(name_of(wheel))[3] if tag in order), wheel)
        for wheel in wheels
        if parse_wheel_filename(name_of(wheel))[3] & order.keys()
    ]
    if not ranked:
        return None
    wheel = min(ranked, key=lambda entry: (entry[0], name_of(entry[1])))[1]
    return name_of(wheel), wheel["hashes"]["sha256"]


def resolved() -> list[dict[str, Any]]:
    """All packages of the lock file with all of their files, as the index has them."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--no-deps", "--format", "pylock.toml", str(LOCK)]
    packages: list[dict[str, Any]] = tomllib.loads(subprocess.check_output(command, cwd=ROOT, text=True))["packages"]
    return packages


def main() -> None:
    """Writes the table, or says which dependency has no wheel and ends with status 1."""
    table: dict[str, dict[str, str]] = {}
    missing = []
    for package in resolved():
        requirement = f"{canonicalize_name(package['name'])}=={package['version']}"
        for python in PYTHONS:
            if applies(package.get("marker"), python):
                wheel = best(package.get("wheels", []), python)
                if wheel is None:
                    missing.append(f"{requirement} has no wheel for Python {python[0]}.{python[1]} on 64-bit Arm")
                else:
                    file, digest = wheel
                    table.setdefault(requirement, {})[file] = digest
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if missing:
        sys.exit("\n".join(missing))


if __name__ == "__main__":
    main()
