"""Every command and every example in the documentation does what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drills.command import drill
from drills.scenarios import SCENARIOS
from policies.loader import load
from tests.gateway_process import DEFAULT_POLICY, ROOT, GatewayProcess

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a shell block; a line that goes on, by backslash or open quote, belongs to the one before."""
    found: list[str] = []
    for line in block.splitlines():
        if found and (found[-1].endswith("\\") or found[-1].count("'") % 2):
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def assert_parses(command: str) -> None:
    """Whether the command line takes these words; nothing is run."""
    words = shlex.split(command, comments=True)
    words = words[words.index("drill") + 1 :]
    context = drill.make_context("drill", words)
    assert set(context.params["scenarios"]) <= SCENARIOS.keys()


SHELL = [
    pytest.param(command, id=f"{document.name}: {command.splitlines()[0][:50]}")
    for document in DOCUMENTS
    for block in blocks(document, "sh")
    for command in commands(block)
]


@pytest.mark.parametrize("command", SHELL)
def test_command(command: str, steady: GatewayProcess) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HYBRID_ROUTER_URL": steady.url,
    }
    if command.startswith("make "):
        # The targets themselves are run by CI and by test_make; here they only have to be there.
        command = command.replace("make ", "make --dry-run ", 1)
    if "drill" in command and "--list" not in command:
        # Drills take minutes: test_drill_command runs one. Here the command line only has to be one.
        return assert_parses(command)
    command = command.replace("http://127.0.0.1:8080", steady.url).replace("127.0.0.1:8081", steady.grpc)
    done = subprocess.run(
        ["bash", "-ec", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    assert "urn:hybrid-router:error" not in done.stdout


def test_tritonclient_example(steady: GatewayProcess) -> None:
    (example,) = [block for block in blocks(ROOT / "docs/http.md", "python") if "tritonclient" in block]
    code = example.replace("127.0.0.1:8080", steady.url.removeprefix("http://"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[\d\]", done.stdout.strip())


@pytest.mark.parametrize(
    ("example", "prints"),
    list(zip(blocks(ROOT / "docs/grpc.md", "python"), (r"\[\d\] edge", r"0\n1\n2", "status: SERVING"), strict=True)),
)
def test_grpc_example(steady: GatewayProcess, example: str, prints: str) -> None:
    code = example.replace("127.0.0.1:8081", steady.grpc)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(prints, done.stdout.strip())


def test_yaml_examples_fit_the_sample() -> None:
    examples = [example for document in DOCUMENTS for example in blocks(document, "yaml")]
    assert examples
    for example in examples:
        whole = yaml.safe_load(DEFAULT_POLICY.read_text())
        for section, content in yaml.safe_load(example).items():
            whole[section] |= content
        load(yaml.safe_dump(whole).encode())


def test_policy_example_is_a_policy() -> None:
    (example,) = [block for block in blocks(ROOT / "docs/policies.md", "python") if "(Policy)" in block]
    code = example + (
        "\nfrom router.snapshot import ModelView, Snapshot\n"
        "empty = Snapshot(1, 0.0, {'m': ModelView(0.05, None, ())}, {}, {'c': frozenset()})\n"
        "print(LeastBusy().plan(Facts('m', 'c', 64, False), empty))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "Plan(attempts=(), reason='nobody is up', explore=())", done.stderr


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
