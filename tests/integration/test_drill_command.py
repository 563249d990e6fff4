"""The drill as an SRE runs it: the command, its report and its JSON, on a relay and in network namespaces."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from drills import DEFAULT_FILE
from drills.command import STATUS
from tests.gateway_process import ROOT

SHORT = {"baseline_s": 2, "before_s": 2, "after_s": 4}
"""Seconds before and after the fault: enough for what is asserted here, not for figures that anybody would quote."""


class Drilled(NamedTuple):
    """What a drill came to: its exit status, its JSON, what it printed for people, and the folder of its report."""

    status: int
    outcome: dict[str, Any]
    said: str
    report: Path


def drill(folder: Path, *arguments: str) -> Drilled:
    """Runs a short drill, and sees that it leaves nothing."""
    before = namespaces()
    text, report = DEFAULT_FILE.read_text(encoding="utf-8"), folder / "report"
    for name, seconds in SHORT.items():
        text, found = re.subn(rf"(?<= {name}: )\d+", str(seconds), text)
        assert found == 1
    file = folder / "short.yaml"
    file.write_text(text, encoding="utf-8")
    options = ["--file", str(file), "--seconds", "3", "--report", str(report), "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "app", "drill", *arguments, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.stdout, done.stderr
    # What a drill that was killed had left may be gone: this one clears that away.
    assert namespaces() <= before
    return Drilled(done.returncode, json.loads(done.stdout), done.stderr, report)


def namespaces() -> set[str]:
    """The named network namespaces there are."""
    return set(os.listdir("/run/netns")) if Path("/run/netns").exists() else set()


@pytest.fixture(scope="module")
def on_a_relay(tmp_path_factory: pytest.TempPathFactory) -> Drilled:
    """One drill without root: what it can do there, and what it cannot."""
    return drill(tmp_path_factory.mktemp("relay"), "--relay", "cloud-crash", "cloud-errors", "dns-loss")


@pytest.fixture(scope="module")
def in_namespaces(tmp_path_factory: pytest.TempPathFactory) -> Drilled:
    """One drill with root."""
    return drill(tmp_path_factory.mktemp("namespaces"), "cloud-crash")


@pytest.mark.parametrize("where", ["in_namespaces", "on_a_relay"])
def test_a_drill_says_what_users_saw_and_leaves_nothing(request: pytest.FixtureRequest, where: str) -> None:
    """How fast things go on a shared machine is not for a test to judge, but that nobody was failed or betrayed is."""
    status, outcome, said, report = request.getfixturevalue(where)
    found = outcome["scenarios"]["cloud-crash"]
    checks = {check["name"]: check["passed"] for check in found["checks"]}
    assert checks["failed"], found
    assert checks["phi on the line"], found
    assert checks["line was watched"], found
    assert found["figures"]["backends"].keys() == {"cloud", "edge, degraded"}
    assert status == STATUS[outcome["verdict"]]
    assert outcome["verdict"] != "PASS" or all(checks.values())
    assert "cloud-crash" in said
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "cloud-crash" in page
    assert "http://" not in page.replace("http://www.w3.org", ""), "it has to open on a machine without a network"
    assert (report / "cloud-crash.png").read_bytes().startswith(b"\x89PNG")


def test_what_needs_root_is_not_run_on_a_relay_and_not_passed_either(on_a_relay: Drilled) -> None:
    assert list(on_a_relay.outcome["scenarios"]) == ["cloud-crash", "cloud-errors"]
    assert list(on_a_relay.outcome["not_run"]) == ["dns-loss"]
    assert "needs root" in on_a_relay.said
