"""How each backend says that it cannot: never with anything but a BackendError, and in the right word."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.cloud import TritonProcess
from backends.onnx import OnnxBackend, OnnxOptions, OnnxVariant
from backends.server import ServerVariant
from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
)
from router.model import TensorSpec
from router.ports import Backend, BackendContext, Servable
from tests.contract.backends import CONTEXT, MODELS, MODELS_DIR, Subject, image, oip_http, pixels, triton

DIGITS = MODELS["digits"].spec
ZEROS = np.zeros((1, 64))


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def subject_at(url: str) -> Subject:
    """What asks the Triton, or whatever it is, at this address."""
    return triton(url) if url.startswith("grpc:") else oip_http(url)


@asynccontextmanager
async def backend_at(url: str) -> AsyncIterator[Backend]:
    """A backend for the Triton there, closed afterwards."""
    backend = subject_at(url).backend()
    yield backend
    await backend.close()


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (replace(DIGITS, inputs={"pixels": TensorSpec("float64", (-1, 64))}), "'pixels' as float32"),
        (replace(DIGITS, inputs={"pixels": TensorSpec("float32", (-1, 65))}), "'pixels' as float32"),
        (replace(DIGITS, inputs={"pixels": TensorSpec("float32", (64,))}), "'pixels' as float32"),
        (replace(DIGITS, inputs={"pixel": TensorSpec("float32", (-1, 64))}), "no tensor 'pixel'"),
        (replace(DIGITS, outputs={"labels": TensorSpec("int64", (-1,))}), "no tensor 'labels'"),
        (replace(DIGITS, outputs={"label": TensorSpec("int32", (-1,))}), "'label' as int64"),
    ],
)
async def test_onnx_refuses_a_spec_that_is_not_the_files(spec: object, sentence: str) -> None:
    backend = OnnxBackend(OnnxOptions(), CONTEXT)
    with pytest.raises(BackendError, match=sentence):
        await backend.open(spec, OnnxVariant("digits-edge.onnx"))  # type: ignore[arg-type]
    await backend.close()


@pytest.mark.parametrize(
    "content",
    [None, b"", b"not a model", (MODELS_DIR / "digits-edge.onnx").read_bytes()[:2000]],
    ids=["missing", "empty", "text", "cut off"],
)
async def test_onnx_refuses_a_file_that_is_no_model(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    backend = OnnxBackend(OnnxOptions(), BackendContext(tmp_path))
    with pytest.raises(BackendUnavailable, match=r"model\.onnx"):
        await backend.open(DIGITS, OnnxVariant("model.onnx"))
    with pytest.raises(BackendUnavailable):
        await backend.open(DIGITS, OnnxVariant("."))
    await backend.close()


@pytest.fixture(params=["grpc", "http"])
def triton_url(request: pytest.FixtureRequest) -> str:
    """Each of the ways to the Triton that nobody may harm."""
    process: TritonProcess = request.getfixturevalue("triton")
    return process.grpc_url if request.param == "grpc" else process.http_url


async def test_triton_says_that_an_unknown_model_is_unavailable(triton_url: str) -> None:
    async with backend_at(triton_url) as backend:
        for variant in (ServerVariant("no-such-model"), ServerVariant("digits", version="99")):
            servable = await backend.open(DIGITS, variant)
            with pytest.raises(BackendUnavailable):
                await servable.infer(pixels(ZEROS), soon())
            for synthetic in (False, True):
                with pytest.raises(BackendUnavailable):
                    await servable.probe(soon(), synthetic=synthetic)


@pytest.mark.parametrize(
    "outputs",
    [
        {"label": TensorSpec("int32", (-1,))},
        {"label": TensorSpec("int64", (-1, 7))},
        {"nonsense": TensorSpec("int64", (-1,))},
    ],
    ids=["dtype", "shape", "missing"],
)
async def test_triton_fails_if_it_answers_something_else_than_the_spec(
    triton_url: str, outputs: dict[str, TensorSpec]
) -> None:
    async with backend_at(triton_url) as backend:
        servable = await backend.open(replace(DIGITS, outputs=outputs), ServerVariant("digits", "1"))
        with pytest.raises(BackendFailed, match="digits:1"):
            await servable.infer(pixels(ZEROS), soon())
        with pytest.raises(BackendFailed):
            await servable.probe(soon(), synthetic=True)


async def test_triton_takes_an_image_and_rejects_what_is_none(triton_url: str) -> None:
    async with backend_at(triton_url) as backend:
        servable = await backend.open(DIGITS, MODELS["digits"].variants["cloud"])
        await servable.probe(soon(), synthetic=True)  # an image is no text: it cannot be sent before it can be sent raw
        reply = await servable.infer(image((MODELS_DIR / "seven.png").read_bytes()), soon())
        assert reply.outputs["label"].tolist() == [7]
        assert reply.outputs["probabilities"].shape == (1, 10)
        with pytest.raises(BackendRejectedInput, match="PNG or JPEG"):
            await servable.infer(image(b"not an image"), soon())


@pytest.fixture(params=["grpc", "http"])
def closed_port(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address on this machine where nobody listens: bound, so that nobody else takes it, and never listened on."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"{request.param}://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(params=["grpc", "http"])
def mute_port(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address on this machine that takes connections and never says a word."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"{request.param}://127.0.0.1:{listening.getsockname()[1]}"


async def test_a_server_that_is_not_there_is_unavailable(closed_port: str) -> None:
    async with subject_at(closed_port).opened() as servable, asyncio.timeout(10):
        for _ in range(3):
            with pytest.raises(BackendUnavailable):
                await servable.infer(pixels(ZEROS), soon(5))
            for synthetic in (False, True):
                with pytest.raises(BackendUnavailable):
                    await servable.probe(soon(5), synthetic=synthetic)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "a failure is no cancellation, and must not be counted as one"


async def test_a_server_that_says_nothing_is_given_up_at_the_deadline(mute_port: str) -> None:
    before = asyncio.all_tasks()
    async with subject_at(mute_port).opened() as servable, asyncio.timeout(10):
        with pytest.raises((BackendTimeout, BackendUnavailable)):
            await servable.infer(pixels(ZEROS), soon(0.2))
        with pytest.raises((BackendTimeout, BackendUnavailable)):
            await servable.probe(soon(0.2), synthetic=False)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("way", ["grpc", "http"])
async def test_triton_outlives_clients_that_hang_up_at_any_moment(mortal_triton: TritonProcess, way: str) -> None:
    """This version of it can crash when a gRPC cancellation reaches it as the inference ends; so none does."""
    url = mortal_triton.grpc_url if way == "grpc" else mortal_triton.http_url
    async with subject_at(url).opened() as servable:
        await servable.probe(soon(), synthetic=True)
        for turn in range(500):
            calling = [asyncio.create_task(servable.infer(pixels(ZEROS), soon())) for _ in range(8)]
            await asyncio.sleep(0.0003 * (turn % 10))
            for task in calling:
                task.cancel()
            await asyncio.gather(*calling, return_exceptions=True)
        assert mortal_triton.running
        assert await _answers_one_of(3, servable)
    assert mortal_triton.running


async def _answers_one_of(calls: int, servable: Servable) -> bool:
    """Whether one of so many calls is answered: on a busy machine what was abandoned can keep one waiting."""
    for _ in range(calls):
        with suppress(BackendTimeout):
            await servable.infer(pixels(ZEROS), soon(10))
            return True
    return False
