"""The documentation page, and a report, in a real browser that can reach nothing but this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway_process import ROOT, GatewayProcess
from tests.integration.test_cli import run, said

INSTALL = "apt-get install --no-install-recommends chromium chromium-driver"
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    # Every name but this machine's leads nowhere: a page that needs the WAN stays empty.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.fail(f"Chromium is not installed; on Debian: {INSTALL}", pytrace=False)
    return found


def dom(chromium: str, url: str, profile: Path) -> str:
    """The page's document once its scripts have run."""
    ended = subprocess.run(
        [chromium, *QUIET, f"--user-data-dir={profile}", "--virtual-time-budget=15000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_documentation_shows_the_routes(steady: GatewayProcess, chromium: str, tmp_path: Path) -> None:
    page = dom(chromium, f"{steady.url}/docs", tmp_path)
    assert "swagger-ui" in page
    # What only the page's scripts can have written, from /openapi.json:
    for anchor in ("operations-inference-infer", "operations-inference-explain"):
        assert f'id="{anchor}"' in page, page[-3000:]
    assert "Hybrid inference router" in page
    assert "Failed to load" not in page


def test_the_documentation_asks_nobody_else(steady: GatewayProcess) -> None:
    for path in ("/docs", "/redoc"):
        page = steady.http.get(path)
        assert page.status_code == 200
        sources = [part.split('"')[1] for part in page.text.replace("src=", "href=").split("href=")[1:] if '"' in part]
        assert sources
        for source in sources:
            assert source.startswith("/"), f"{path} loads {source}"
            assert steady.http.get(source).status_code == 200


def test_a_report_opens_without_a_complaint(chromium: str, tmp_path: Path) -> None:
    report = tmp_path / "decision.html"
    said(run("advise", ROOT / "planning/examples/cameras.yaml", "--report", report))
    opened = (f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", report.as_uri())
    ended = subprocess.run([chromium, *QUIET, *opened], capture_output=True, text=True, timeout=90, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ":CONSOLE" not in ended.stderr
    assert ended.stdout.count("<section ") == report.read_text().count("<section ")
    assert ended.stdout.count("</svg>") == 3
