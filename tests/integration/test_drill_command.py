"""The drill as an SRE runs it: the command, its report and its JSON, on a relay and in network namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drills.command import STATUS
from tests.gateway_process import ROOT


def drill(report: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Runs a short drill. Returns its exit status, its JSON and what it printed for people."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "drill", *arguments, "--seconds", "3", "--report", str(report), "--json", "-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def namespaces() -> set[str]:
    """The named network namespaces there are."""
    return set(os.listdir("/run/netns")) if Path("/run/netns").exists() else set()


@pytest.mark.parametrize("relay", [False, True], ids=["namespaces", "relay"])
def test_a_drill_says_what_users_saw_and_leaves_nothing(tmp_path: Path, relay: bool) -> None:
    """How fast things go on a shared machine is not for a test to judge, but that nobody was failed or betrayed is."""
    before = namespaces()
    status, outcome, said = drill(tmp_path, "cloud-crash", *(["--relay"] if relay else []))
    found = outcome["scenarios"]["cloud-crash"]
    checks = {check["name"]: check["passed"] for check in found["checks"]}
    assert checks["failed"], found
    assert checks["phi on the line"], found
    assert checks["line was watched"], found
    assert found["figures"]["backends"].keys() == {"cloud", "edge, degraded"}
    assert status == STATUS[outcome["verdict"]]
    assert outcome["verdict"] != "PASS" or all(checks.values())
    assert "cloud-crash" in said
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "cloud-crash" in page
    assert "http://" not in page.replace("http://www.w3.org", ""), "it has to open on a machine without a network"
    assert (tmp_path / "cloud-crash.png").read_bytes().startswith(b"\x89PNG")
    # What a drill that was killed had left may be gone: this one clears that away.
    assert namespaces() <= before


def test_what_needs_root_is_not_run_on_a_relay_and_not_passed_either(tmp_path: Path) -> None:
    _, outcome, said = drill(tmp_path, "--relay", "cloud-errors", "dns-loss")
    assert list(outcome["not_run"]) == ["dns-loss"]
    assert "needs root" in said
