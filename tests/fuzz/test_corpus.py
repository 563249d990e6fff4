"""The kept corpus: every input that a fuzzer found interesting, and every one that once did harm."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from router.engine import Engine
from tests.fuzz.oip_request import CORPUS, decode, parts
from tests.gateway_process import GatewayProcess, policy_text
from tests.unit.app.codec.conftest import engine  # noqa: F401 the fixture

INPUTS: Final = sorted(CORPUS.iterdir())
each = pytest.mark.parametrize("file", INPUTS, ids=lambda file: file.name)

NARROW_BYTES: Final = 256 << 20
"""What the decoder may take beyond what a process with everything loaded has: a claimed terabyte is far more."""

NARROW: Final = """
import asyncio, resource, sys
from tests.fuzz.oip_request import CORPUS, decode
from tests.unit.app.codec.front import knowing_engine
from tests.unit.virtual_time import VirtualTimeLoop

with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
    context = knowing_engine()
    engine = runner.run(context.__aenter__())
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(sum(decode(engine, file.read_bytes()) for file in CORPUS.iterdir()))
    runner.run(context.__aexit__(None, None, None))
"""


@each
def test_the_decoder_takes_it_or_refuses_it(engine: Engine, file: Path) -> None:  # noqa: F811
    decode(engine, file.read_bytes())


def test_what_is_claimed_takes_no_memory() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NARROW, str(NARROW_BYTES)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 5


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    file = tmp_path_factory.mktemp("fuzz") / "policy.yaml"
    file.write_text(policy_text("grpc://127.0.0.1:9"))
    with GatewayProcess(file, {}) as gateway:
        limit = 4 << 30
        resource.prlimit(gateway.process.pid, resource.RLIMIT_AS, (limit, limit))
        yield gateway
        assert gateway.process.poll() is None
        assert "Traceback" not in gateway.log()


def test_a_gateway_answers_each_with_no_more_than_a_refusal(victim: GatewayProcess) -> None:
    for file in INPUTS:
        _, length, body = parts(file.read_bytes())
        headers = {} if length is None else {b"Inference-Header-Content-Length": length}
        response = victim.http.post("/v2/models/digits/infer", content=body, headers=headers)
        assert response.status_code < 500 or response.status_code == 501, (file.name, response.text)
        if response.is_error:
            assert list(response.json()) == ["error"], file.name
