"""Schemathesis reads /openapi.json and holds the running gateway to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.gateway_process import GatewayProcess

TIMEOUT_S = 180
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


def test_the_gateway_keeps_its_openapi_document(steady: GatewayProcess, tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{steady.url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--continue-on-failure"),
            *("--max-examples", "60", "--seed", "1", "--no-color", "--suppress-health-check", "all"),
            # Who asks for an answer in no time gets a 504, and rightly: all cases ask for one within a minute.
            *("--header", "X-Deadline-Ms: 60000"),
        ],
        cwd=tmp_path,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Tested: 23" in ended.stdout, ended.stdout
