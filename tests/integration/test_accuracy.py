"""Every held-out picture through the gateway, to each side: exactly as right as the models are by themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest

from tests.gateway_process import GatewayProcess
from tests.integration.scenario import MODELS, accuracy

Holdout = tuple[np.ndarray, np.ndarray]

SIDES = pytest.mark.parametrize(("data_class", "side"), [("phi", "edge"), ("unclassified", "cloud")])
CONNECTIONS = 8
BATCH = 60


async def ask_all(gateway: GatewayProcess, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers, in order."""
    connections = asyncio.Semaphore(CONNECTIONS)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20.0, trust_env=False) as http:

        async def ask(body: dict[str, Any]) -> dict[str, Any]:
            async with connections:
                response = await http.post("/infer", json=body)
            assert response.status_code == 200, response.text
            answer: dict[str, Any] = response.json()
            return answer

        return await asyncio.gather(*map(ask, bodies))


def bodies(model: str, name: str, tensor: np.ndarray, data_class: str, rows: int) -> list[dict[str, Any]]:
    """One request for every `rows` rows. The deadline is out of the way: here it is answers that count."""
    return [
        {
            "model": model,
            "inputs": {name: tensor[start : start + rows].tolist()},
            "data_class": data_class,
            "deadline_ms": 10_000,
        }
        for start in range(0, len(tensor), rows)
    ]


def assert_all_from(side: str, answers: list[dict[str, Any]]) -> None:
    seen = {(answer["route"]["backend"], answer["route"]["degraded"]) for answer in answers}
    assert seen == {(side, False)}, {answer["route"]["reason"] for answer in answers}


@SIDES
@pytest.mark.parametrize("rows", [1, BATCH])
async def test_digits_is_as_right_as_when_it_was_made(
    steady: GatewayProcess, holdout: Holdout, data_class: str, side: str, rows: int
) -> None:
    pixels, labels = holdout
    answers = await ask_all(steady, bodies("digits", "pixels", pixels, data_class, rows))
    assert_all_from(side, answers)
    found = np.concatenate([answer["outputs"]["label"] for answer in answers])
    probabilities = np.concatenate([answer["outputs"]["probabilities"] for answer in answers])
    assert found.shape == labels.shape
    assert int((found == labels).sum()) == accuracy("digits", side)
    assert probabilities.shape == (len(labels), 10)
    assert (probabilities.argmax(axis=1) == found).all()


@SIDES
async def test_embed_gives_what_the_file_gives(
    steady: GatewayProcess, holdout: Holdout, data_class: str, side: str
) -> None:
    images = holdout[0].reshape(-1, 8, 8)
    answers = await ask_all(steady, bodies("embed", "image", images, data_class, BATCH))
    assert_all_from(side, answers)
    found = np.concatenate([answer["outputs"]["embedding"] for answer in answers])
    session = onnxruntime.InferenceSession(str(MODELS / f"embed-{side}.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": images})
    np.testing.assert_allclose(found, expected, atol=1e-5)


@SIDES
async def test_all_pictures_at_once_are_answered_as_they_are_one_by_one(
    steady: GatewayProcess, holdout: Holdout, data_class: str, side: str
) -> None:
    """Far more rows than Triton takes at a time."""
    pixels, labels = holdout
    answers = await ask_all(steady, bodies("digits", "pixels", pixels, data_class, len(pixels)))
    assert_all_from(side, answers)
    assert int((np.array(answers[0]["outputs"]["label"]) == labels).sum()) == accuracy("digits", side)


async def test_a_cascade_is_as_right_as_the_cloud_and_asks_it_for_the_doubtful_rows_only(
    steady: GatewayProcess, holdout: Holdout
) -> None:
    pixels, labels = holdout
    answers = await ask_all(steady, bodies("digits", "pixels", pixels, "camera", 1))
    found = np.concatenate([answer["outputs"]["label"] for answer in answers])
    by_edge = [answer for answer in answers if answer["route"]["backend"] == "edge"]
    assert not any(answer["route"]["degraded"] for answer in answers)
    assert all(answer["route"]["bytes_out"] == 0 for answer in by_edge)
    # accuracy.json, "cascade" at a confidence of 0.95
    assert len(by_edge) == 450
    assert int((found == labels).sum()) == 533
