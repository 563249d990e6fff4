"""Image files: read on either side, fewer bytes out when the device does the stages, and clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.cloud import TritonProcess
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import SEVEN, cloud_only, edited, is_up, served_by

PROBLEM = "application/problem+json"
CLASSES = pytest.mark.parametrize("data_class", ["phi", "unclassified", "camera"])


def seven(side: int, kind: str = "PNG") -> bytes:
    """The seven, upscaled and with a little seeded noise, so that it does not compress to nothing."""
    with Image.open(SEVEN) as image:
        pixels = np.asarray(image.convert("L").resize((side, side), Image.Resampling.NEAREST), dtype=np.int16)
    noise = np.random.default_rng(0).integers(-8, 9, pixels.shape)
    file = BytesIO()
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def blank(side: int) -> bytes:
    """A black square: a few kilobytes of file, however many pixels."""
    file = BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def post(
    gateway: GatewayProcess, content: bytes, media_type: str = "image/png", model: str = "digits", **facts: str
) -> httpx.Response:
    headers = {"Content-Type": media_type}
    # The deadline is out of the way: here it is answers that count.
    params = {"model": model, "deadline_ms": "10000", **facts}
    return gateway.http.post("/infer", params=params, content=content, headers=headers)


def answer_to(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def assert_problem(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    document = response.json()
    assert (document["status"], document["code"]) == (status, code)
    return str(document["detail"])


@pytest.mark.parametrize(("data_class", "backend"), [("phi", "edge"), ("unclassified", "cloud"), ("camera", "edge")])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_seven_is_a_seven(steady: GatewayProcess, data_class: str, backend: str, kind: str) -> None:
    content = seven(256, kind)
    answer = answer_to(post(steady, content, f"image/{kind.lower()}", data_class=data_class))
    assert answer["outputs"]["label"] == [7]
    assert answer["route"]["backend"] == backend
    assert not answer["route"]["degraded"]
    assert answer["route"]["bytes_out"] == (len(content) if backend == "cloud" else 0)


def test_the_sample_file_is_a_seven_without_facts(steady: GatewayProcess) -> None:
    headers = {"Content-Type": "image/png"}
    response = steady.http.post("/infer?model=digits", content=SEVEN.read_bytes(), headers=headers)
    assert answer_to(response)["outputs"]["label"] == [7]


def test_fewer_bytes_leave_when_the_stages_run_here(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess
) -> None:
    """Split without a threshold: the cloud answers, but it is sent the tensor, not the file."""
    gateway = start_gateway(
        edited(policy_text(triton.grpc_url), lambda content: content["policies"]["camera"].pop("accept_if"))
    )
    gateway.wait_until(is_up)
    content = seven(512)
    assert len(content) > 20_000
    split = answer_to(post(gateway, content, data_class="camera"))
    whole = answer_to(post(gateway, content))
    assert [answer["outputs"]["label"] for answer in (split, whole)] == [[7], [7]]
    assert [answer["route"]["backend"] for answer in (split, whole)] == ["cloud", "cloud"]
    assert split["route"]["bytes_out"] == 64 * 4
    assert whole["route"]["bytes_out"] == len(content)
    assert split["route"]["attempts"][0]["stages_ms"] > 0
    assert whole["route"]["attempts"][0]["stages_ms"] == 0
    np.testing.assert_allclose(split["outputs"]["probabilities"], whole["outputs"]["probabilities"], atol=1e-4)


@CLASSES
@pytest.mark.parametrize(
    "content",
    [b"no picture", SEVEN.read_bytes()[:150], b"GIF89a" + bytes(100), seven(64, "JPEG"), blank(5000)],
    ids=["text", "truncated", "gif", "jpeg-called-png", "too-many-pixels"],
)
def test_a_bad_image_is_refused_on_every_route(steady: GatewayProcess, data_class: str, content: bytes) -> None:
    detail = assert_problem(post(steady, content, data_class=data_class), 422, "unprocessable-image")
    assert "image" in detail


def test_bad_images_do_not_count_against_the_cloud(steady: GatewayProcess, triton: TritonProcess) -> None:
    before = served_by(triton, "digits_image")
    for _ in range(6):  # more often than it takes to open a breaker
        # its header is fine, so that only who decodes it notices
        assert_problem(post(steady, SEVEN.read_bytes()[:150]), 422, "unprocessable-image")
    assert served_by(triton, "digits_image") >= before + 6, "they were to be sent to the cloud"
    assert is_up(steady)
    assert answer_to(post(steady, seven(64)))["route"]["backend"] == "cloud"


def test_a_bad_image_is_its_senders_fault_where_there_is_only_the_cloud(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess
) -> None:
    gateway = start_gateway(cloud_only(policy_text(triton.grpc_url)))
    gateway.wait_until(is_up)
    for _ in range(4):
        response = post(gateway, SEVEN.read_bytes()[:150])
        assert response.status_code in (400, 422), response.text
        assert response.headers["content-type"] == PROBLEM
        assert "readable" in response.json()["detail"]
    assert is_up(gateway)
    assert answer_to(post(gateway, SEVEN.read_bytes()))["outputs"]["label"] == [7]


@CLASSES
def test_an_empty_image_is_no_image(steady: GatewayProcess, data_class: str) -> None:
    assert_problem(post(steady, b"", data_class=data_class), 400, "malformed-body")


@pytest.mark.parametrize("media_type", ["image/tiff", "text/plain", "application/x-www-form-urlencoded", "nonsense"])
@pytest.mark.parametrize("query", ["", "?model=digits"])
def test_an_unknown_media_type_is_named(steady: GatewayProcess, media_type: str, query: str) -> None:
    """With no query as well: a client that forgets its Content-Type is told that, not how to send an image."""
    response = steady.http.post(f"/infer{query}", content=b"{}", headers={"Content-Type": media_type})
    detail = assert_problem(response, 415, "unsupported-media-type")
    assert media_type in detail
    assert "application/json" in detail


def test_a_model_without_stages_takes_no_image(steady: GatewayProcess) -> None:
    detail = assert_problem(post(steady, SEVEN.read_bytes(), model="embed"), 415, "unsupported-media-type")
    assert "embed takes no images" in detail


def test_an_image_without_a_model_asks_for_one(steady: GatewayProcess) -> None:
    response = steady.http.post("/infer", content=SEVEN.read_bytes(), headers={"Content-Type": "image/png"})
    assert "/infer?model=NAME" in assert_problem(response, 400, "invalid-field")


def test_explain_takes_an_image_too(steady: GatewayProcess) -> None:
    headers = {"Content-Type": "image/png"}
    params = {"model": "digits", "data_class": "phi"}
    response = steady.http.post("/route/explain", params=params, content=SEVEN.read_bytes(), headers=headers)
    (attempt,) = answer_to(response)["plan"]
    assert (attempt["backend"], attempt["bytes_out"]) == ("edge", 0)
    assert attempt["stages"] == ["decode", "grayscale", "resize", "normalize"]
