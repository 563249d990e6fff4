"""Every locked runtime dependency installs on a Raspberry Pi without a compiler, on each Python that is supported."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[2]
TABLE: dict[str, dict[str, str]] = json.loads((ROOT / "deploy/arm64/wheels.json").read_text(encoding="utf-8"))

_spec = importlib.util.spec_from_file_location("arm64_wheels", ROOT / "deploy/arm64/wheels.py")
assert _spec is not None
assert _spec.loader is not None
wheels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(wheels)


def locked() -> dict[str, tuple[Requirement, set[str]]]:
    """The lock file's requirements with the hashes of their files, by name and version."""
    found = {}
    for entry in (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if entry and not entry.startswith("#"):
            requirement = Requirement(entry.partition(" --hash")[0].strip())
            (version,) = requirement.specifier
            key = f"{canonicalize_name(requirement.name)}=={version.version}"
            found[key] = requirement, set(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
    return found


LOCKED = locked()


def test_the_table_names_what_is_locked_and_nothing_else() -> None:
    assert len(LOCKED) > 30
    assert TABLE.keys() == LOCKED.keys(), "`make lock` writes both"


@pytest.mark.parametrize("requirement", LOCKED)
def test_a_wheel_that_the_lock_allows_runs_on_64_bit_arm(requirement: str) -> None:
    wanted, hashes = LOCKED[requirement]
    for file, digest in TABLE[requirement].items():
        name, version, _, _ = parse_wheel_filename(file)
        assert f"{name}=={version}" == requirement
        assert digest in hashes, f"{file} is not among the files that the lock allows"
    for python in wheels.PYTHONS:
        if wanted.marker is None or wanted.marker.evaluate(wheels.environment(python)):
            runs = set(wheels.tags(python))
            assert any(parse_wheel_filename(file)[3] & runs for file in TABLE[requirement]), (python, requirement)


def test_every_supported_python_is_looked_at() -> None:
    supported = SpecifierSet(
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    )
    assert [minor for minor in range(30) if f"3.{minor}.0" in supported] == [minor for _, minor in wheels.PYTHONS]


def test_a_wheel_for_another_machine_or_python_is_not_taken_for_one() -> None:
    def taken(file: str) -> bool:
        return wheels.best([{"name": file, "hashes": {"sha256": ""}}], (3, 11)) is not None

    assert taken("x-1-cp311-cp311-manylinux_2_28_aarch64.whl")
    assert taken("x-1-cp39-abi3-manylinux2014_aarch64.whl")
    assert taken("x-1-py3-none-any.whl")
    assert not taken("x-1-cp311-cp311-manylinux_2_28_x86_64.whl")
    assert not taken("x-1-cp312-cp312-manylinux_2_28_aarch64.whl")
    assert not taken("x-1-cp311-cp311-manylinux_2_39_aarch64.whl"), "for a newer C library than Debian 12 has"
    assert not taken("x-1-cp311-cp311-musllinux_1_2_aarch64.whl")
    assert not taken("x-1-cp311-cp311-macosx_11_0_arm64.whl")
