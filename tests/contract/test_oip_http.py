"""The HTTP backend against servers that do what no good one should: its connections, its deadlines, its words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from backends.oip_http import OipHttpBackend, OipHttpOptions, OipHttpServable
from backends.server import MAX_MESSAGE_BYTES, RENEW_AFTER, ServerVariant
from router.errors import (
    BackendError,
    BackendFailed,
    BackendLost,
    BackendTimeout,
    BackendUnavailable,
    Overloaded,
)
from router.model import ModelSpec, TensorSpec
from router.ports import Call
from tests.contract.backends import CONTEXT
from tests.contract.http2_stub import Http2Stub, http2_stub
from tests.contract.http_stub import HttpStub, answer, document_of, http_stub

SPEC = ModelSpec("m", "1", {"x": TensorSpec("float32", (-1, 2))}, {"y": TensorSpec("float32", (-1,))})
GOOD = answer(b'{"outputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [0.5]}]}')
READY = answer()


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def call() -> Call:
    return Call({"x": np.ones((1, 2), np.float32)}, 8, 1, "r1", {})


@asynccontextmanager
async def asking(stub: HttpStub | Http2Stub, key_variable: str = "") -> AsyncIterator[OipHttpServable]:
    """Model `m` of the stand-in, closed afterwards."""
    backend = OipHttpBackend(OipHttpOptions(stub.url, key_variable), CONTEXT)
    try:
        yield await backend.open(SPEC, ServerVariant("m"))
    finally:
        await backend.close()


async def test_connections_are_used_again() -> None:
    async with http_stub({"/infer": GOOD, "/ready": READY}) as stub, asking(stub) as servable:
        for _ in range(20):
            await servable.infer(call(), soon())
            await servable.probe(soon(), synthetic=False)
        assert stub.connections == 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer(status=200, body=b"<html>"), BackendFailed),
        (answer(status=301, headers=b"Location: http://127.0.0.1:9/\r\n"), BackendFailed),
        (answer(headers=b"Content-Encoding: gzip\r\n"), BackendFailed),
        (answer(length=MAX_MESSAGE_BYTES * 2, body=bytes(MAX_MESSAGE_BYTES + 1)), BackendFailed),
        (answer(status=429, headers=b"Retry-After: 3\r\n"), Overloaded),
        (answer(status=503), BackendUnavailable),
        (answer(length=1000), BackendLost),
        (b"", BackendLost),
        (b"this is not HTTP\r\n\r\n", BackendLost),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + b"X: " + b"x" * 500_000 + b"\r\n\r\n", BackendLost),
    ],
    ids=["html", "redirect", "compressed", "huge", "busy", "away", "cut off", "hangs up", "no http", "huge head"],
)
async def test_what_a_bad_server_answers_has_its_word_and_the_next_call_works(
    said: bytes, kind: type[BackendError]
) -> None:
    async with http_stub({"/infer": said}) as stub, asking(stub) as servable:
        with pytest.raises(BackendError) as caught:
            await servable.infer(call(), soon(2.0 if kind is BackendLost else 10.0))
        assert type(caught.value) in (kind, BackendTimeout if said == answer(length=1000) else kind)
        stub.answers["/infer"] = GOOD
        await servable.infer(call(), soon())


async def test_a_call_that_nobody_waits_for_ends_by_itself_and_says_how_long_it_took() -> None:
    took: asyncio.Queue[float] = asyncio.Queue()
    async with http_stub({"/infer": GOOD}, held=True) as stub, asking(stub) as servable, asyncio.timeout(10):
        asked = call()
        asked.late = took.put_nowait
        waiting = asyncio.create_task(servable.infer(asked, soon()))
        await stub.asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stub.hold.set()
        assert await took.get() > 0
        await servable.infer(call(), soon())
        assert (stub.connections, stub.hung_up) == (1, 0)


async def test_a_call_that_is_cancelled_before_it_left_is_not_sent() -> None:
    async with http_stub({"/infer": GOOD, "/ready": READY}) as stub, asking(stub) as servable:
        waiting = asyncio.create_task(servable.infer(call(), soon()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for _ in range(5):
            await servable.probe(soon(), synthetic=False)
        assert stub.sent("/infer") == []


async def test_an_answer_after_the_deadline_is_a_timeout() -> None:
    async with http_stub({"/infer": None}) as stub, asking(stub) as servable:
        started = time.monotonic()
        with pytest.raises(BackendTimeout):
            await servable.infer(call(), soon(0.1))
        assert time.monotonic() - started < 2
        with pytest.raises(BackendTimeout):
            await servable.infer(call(), soon(-1))
        assert len(stub.sent("/infer")) == 1


async def test_the_key_goes_along_and_a_proxy_from_the_environment_does_not_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOUD_KEY", "s3cret")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with http_stub({"/infer": GOOD}) as stub, asking(stub, "CLOUD_KEY") as servable:
        await servable.infer(call(), soon())
        ((head, _),) = stub.sent("/infer")
    assert b"\r\nauthorization: bearer s3cret\r\n" in head.lower()


async def test_a_server_that_takes_raw_tensors_gets_them_once_it_has_said_so() -> None:
    metadata = answer(b'{"extensions": ["binary_tensor_data", "model_configuration"]}')
    async with (
        http_stub({"/infer": GOOD, "/v2": metadata, "/config": answer(b'{"max_batch_size": 2}')}) as stub,
        asking(stub) as servable,
    ):
        await servable.infer(call(), soon())
        await servable.probe(soon(), synthetic=True)
        await servable.infer(call(), soon())
        before, _, after = stub.sent("/infer")
        assert b"inference-header-content-length" not in before[0].lower()
        assert b"inference-header-content-length" in after[0].lower()
        assert after[1].endswith(np.ones(2, np.float32).tobytes())
        stub.requests.clear()
        rows = np.ones((5, 2), np.float32)
        reply = await servable.infer(Call({"x": rows}, rows.nbytes, len(rows), "r1", {}), soon())
        assert len(reply.outputs["y"]) == 3
        sizes = [document["inputs"][0]["shape"][0] for document in map(document_of, stub.sent("/infer"))]
        assert sorted(sizes) == [1, 2, 2]


@pytest.mark.parametrize("said", [answer(status=503), answer(status=400), answer(status=429), answer(status=500)])
async def test_a_model_that_does_not_say_that_it_is_ready_is_not(said: bytes) -> None:
    async with http_stub({"/infer": GOOD, "/ready": said}) as stub, asking(stub) as servable:
        with pytest.raises(BackendUnavailable, match="not ready"):
            await servable.probe(soon(), synthetic=False)


@pytest.mark.parametrize("status", [400, 429])
async def test_a_probe_that_is_refused_finds_the_backend_away(status: int) -> None:
    async with http_stub({"/infer": answer(status=status), "/v2": READY}) as stub, asking(stub) as servable:
        with pytest.raises(BackendUnavailable):
            await servable.probe(soon(), synthetic=True)


async def test_many_calls_at_once_on_a_server_that_says_nothing_leave_no_task() -> None:
    before = asyncio.all_tasks()
    async with http_stub({"/infer": None}) as stub, asking(stub) as servable:
        ends = await asyncio.gather(*(servable.infer(call(), soon(0.2)) for _ in range(40)), return_exceptions=True)
        assert all(isinstance(end, BackendTimeout | Overloaded) for end in ends), ends
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > len(before) + 1:  # noqa: ASYNC110 there is no event for "a task has gone"
            await asyncio.sleep(0.01)


async def test_over_tls_calls_share_a_connection_and_none_is_lost_when_the_server_ends_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http2_stub(tmp_path) as stub:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        async with asking(stub) as servable:
            for _ in range(150):
                await asyncio.gather(*(servable.infer(call(), soon()) for _ in range(8)))
        assert sum(stub.carried) == 1200
        assert len(stub.carried) == 3


async def test_a_certificate_that_nobody_vouches_for_is_refused_and_nothing_is_sent(tmp_path: Path) -> None:
    async with http2_stub(tmp_path) as stub, asking(stub) as servable:
        with pytest.raises(BackendUnavailable, match="certificate"):
            await servable.infer(call(), soon())
        assert sum(stub.carried) == 0


async def test_a_connection_that_the_network_has_forgotten_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http2_stub(tmp_path) as stub:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        async with asking(stub) as servable:
            await servable.probe(soon(), synthetic=False)
            stub.forgotten = 1
            for _ in range(RENEW_AFTER):
                with pytest.raises(BackendTimeout):
                    await servable.probe(soon(0.1), synthetic=False)
            await servable.probe(soon(), synthetic=False)
            await servable.infer(call(), soon())
        assert len(stub.carried) == 2
