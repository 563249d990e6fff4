"""The Dockerfile: what can be read off it, and what the image does once it is built and run."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy.container.build import Stage
from deploy.container.dockerfile import Context, Instruction, parse

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    return parse((PROJECT / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(PROJECT)


def values(instructions: list[Instruction], name: str) -> list[str]:
    return [instruction.value for instruction in instructions if instruction.name == name]


def declared(instructions: list[Instruction], *names: str) -> dict[str, str]:
    """NAME=value pairs of these instructions."""
    pairs: dict[str, str] = {}
    for name in names:
        for value in values(instructions, name):
            pairs |= Stage(Path("/"), env=pairs).assignments(value)
    return pairs


def test_the_parser_joins_lines_and_splits_flags() -> None:
    text = '# no\nHEALTHCHECK --interval=1s \\\n  # nor this\n    CMD ["a", "--b=c"]\n\nrun x \\\n && y\n'
    assert parse(text) == [Instruction("HEALTHCHECK", {"interval": "1s"}, 'CMD ["a", "--b=c"]'), ("RUN", {}, "x && y")]


def test_the_last_line_that_matches_decides_what_is_sent(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n!app\n!data/*.bin\n**/__pycache__\n")
    for name in ("app/a.py", "app/deep/b.py", "app/__pycache__/a.pyc", "data/x.bin", "data/x.txt", "secret"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    context = Context(tmp_path)
    assert [str(below) for _, below in context.copies("app")] == ["a.py", "deep/b.py"]
    assert [(file.name, below) for file, below in context.copies("data/*")] == [("x.bin", Path())]
    assert list(context.copies("secret")) == []


def test_every_source_is_there_and_sent(instructions: list[Instruction], context: Context) -> None:
    copies = [instruction for instruction in instructions if instruction.name == "COPY" and not instruction.flags]
    sources = [source for instruction in copies for source in instruction.value.split()[:-1]]
    assert [source for source in sources if not list(context.copies(source))] == []


@pytest.mark.parametrize("path", [".git/config", ".venv/bin/python", ".env", "tests/conftest.py", "app/__pycache__/x"])
def test_nothing_private_is_sent(context: Context, path: str) -> None:
    assert not context.sent(Path(path))


def test_every_base_is_named_by_release(instructions: list[Instruction]) -> None:
    bases = {value.partition(" AS ")[0] for value in values(instructions, "FROM")}
    assert bases == {"debian:bookworm-slim"}


def test_only_locked_wheels_are_installed(instructions: list[Instruction]) -> None:
    installs = [part for value in values(instructions, "RUN") for part in value.split("&&") if "pip install" in part]
    (locked,) = (part for part in installs if "requirements.lock" in part)
    assert "--require-hashes" in locked
    assert "--only-binary :all:" in locked
    assert all("--no-deps --no-build-isolation ." in part for part in installs if part != locked)


def test_it_runs_as_a_number_that_is_not_root(instructions: list[Instruction]) -> None:
    user, _, group = values(instructions, "USER")[-1].partition(":")
    assert user.isdigit()
    assert group.isdigit()
    assert 0 not in (int(user), int(group))


def test_it_has_no_key_and_no_telemetry(instructions: list[Instruction]) -> None:
    environment = declared(instructions, "ENV")
    assert not [name for name in environment | declared(instructions, "ARG") if "KEY" in name]
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_its_labels_agree_with_the_package(instructions: list[Instruction]) -> None:
    package = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    labels = declared(instructions, "ARG", "LABEL")
    for label, key in (("title", "name"), ("version", "version"), ("description", "description")):
        assert labels[f"org.opencontainers.image.{label}"] == package[key]


def test_it_builds_and_keeps_its_promises() -> None:
    """Needs root and debootstrap; without them it fails, and the message says so."""
    command = [sys.executable, "-m", "deploy.container.exercise"]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)
    assert "ok: SIGTERM ends it in order" in done.stdout
