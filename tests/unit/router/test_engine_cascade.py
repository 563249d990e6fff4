"""The cascade as the engine carries it out: unconfident rows go on, confident ones stay, all come back in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import BackendFailed, BackendRejectedInput, BackendTimeout, BackendUnavailable, Outcome
from router.model import TensorSpec
from router.plan import MARGIN_S
from tests.unit.samples import (
    CLOUD,
    CLOUD_USD,
    CLOUD_USD_PER_BYTE,
    EDGE_IF_SURE,
    EDGE_USD,
    IMAGE,
    MODEL,
    deployment,
    plan,
    request,
    rows,
)
from tests.unit.standins import Lab, answer, fail, hang
from tests.unit.virtual_time import in_virtual_time

CASCADE = plan(EDGE_IF_SURE, CLOUD)
BYTES_PER_ROW = 8


@settings(max_examples=30)
@given(st.lists(st.sampled_from((0.1, 0.5, 0.89, 0.9, 0.95, 1.0)), min_size=1, max_size=12))
@in_virtual_time
async def test_only_unconfident_rows_are_sent_on_and_all_come_back_in_place(firsts: list[float]) -> None:
    lab = Lab()
    lab.cloud.infer = answer(0.99)
    async with lab.running(deployment(CASCADE)) as engine:
        response = await engine.infer(request(rows(*firsts)))
    unsure = [first for first in firsts if np.float32(first) < np.float32(0.9)]
    assert response.outputs["scores"][:, 0].tolist() == pytest.approx(
        [0.99 if np.float32(first) < np.float32(0.9) else first for first in firsts]
    )
    assert [len(call.payload["x"]) for call in lab.edge.calls] == [len(firsts)]  # type: ignore[index]
    if not unsure:
        assert lab.cloud.calls == []
        assert response.route.backend == "edge"
        assert not response.route.degraded
        return
    assert lab.cloud.calls[0].payload["x"][:, 0].tolist() == pytest.approx(unsure)  # type: ignore[index]
    assert lab.cloud.calls[0].payload_bytes == BYTES_PER_ROW * len(unsure)
    assert (lab.edge.calls[0].rows, lab.cloud.calls[0].rows) == (len(firsts), len(unsure))
    # Of each row the whole answer is taken: `row` counts what the backend that answered it was sent.
    sent_on = iter(range(len(unsure)))
    assert response.outputs["row"].tolist() == [
        next(sent_on) if np.float32(first) < np.float32(0.9) else index for index, first in enumerate(firsts)
    ]
    assert response.route.backend == "cloud"
    assert [record.error for record in response.route.attempts] == ["unconfident", None]
    assert [record.outcome for record in response.route.attempts] == [Outcome.SUCCESS, Outcome.SUCCESS]
    assert response.route.bytes_out == BYTES_PER_ROW * len(unsure)
    sent = BYTES_PER_ROW * len(unsure) * CLOUD_USD_PER_BYTE
    assert response.route.cost_usd == pytest.approx(EDGE_USD * len(firsts) + CLOUD_USD * len(unsure) + sent)


@pytest.mark.parametrize("error", [BackendFailed, BackendUnavailable, BackendTimeout, BackendRejectedInput])
@in_virtual_time
async def test_the_held_answer_is_given_degraded_when_the_cloud_fails(error: type[BackendFailed]) -> None:
    lab = Lab()
    lab.cloud.infer = fail(error("down"))
    async with lab.running(deployment(CASCADE)) as engine:
        response = await engine.infer(request(rows(0.95, 0.2)))
    assert response.outputs["scores"][:, 0].tolist() == pytest.approx([0.95, 0.2])
    assert response.route.degraded
    assert response.route.backend == "edge"
    assert f"below the threshold, and no other backend answered; cloud: {error.code}" in response.route.reason


@in_virtual_time
async def test_the_held_answer_is_given_by_the_deadline_when_the_cloud_hangs() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment(CASCADE)) as engine:
        response = await engine.infer(request(rows(0.2), within_s=0.5))
    assert response.route.degraded
    assert response.route.latency_s == pytest.approx(0.5 - MARGIN_S)
    assert lab.cloud.cancelled == 1


@in_virtual_time
async def test_a_second_threshold_asks_for_what_is_still_unsure_only() -> None:
    lab = Lab()
    lab.scripts["third"] = type(lab.cloud)()
    lab.cloud.infer = answer()
    twice = plan(EDGE_IF_SURE, replace(EDGE_IF_SURE, backend="cloud"))
    async with lab.running(deployment(twice)) as engine:
        response = await engine.infer(request(rows(0.95, 0.2, 0.3)))
    assert len(lab.cloud.calls[0].payload["x"]) == 2  # type: ignore[index]
    assert response.outputs["scores"][:, 0].tolist() == pytest.approx([0.95, 0.2, 0.3])
    assert response.route.degraded
    assert [record.error for record in response.route.attempts] == ["unconfident", "unconfident"]


@in_virtual_time
async def test_a_model_without_rows_is_asked_again_as_a_whole() -> None:
    lab = Lab()
    lab.cloud.infer = answer(0.99)
    fixed = replace(
        MODEL, inputs={"x": TensorSpec("float32", (2, 2))}, outputs={"scores": TensorSpec("float32", (2, 2))}
    )
    async with lab.running(deployment(CASCADE, model=fixed)) as engine:
        response = await engine.infer(request(rows(0.95, 0.2)))
    assert len(lab.cloud.calls[0].payload["x"]) == 2  # type: ignore[index]
    assert response.outputs["scores"].tolist() == [[pytest.approx(0.99)] * 2] * 2
    assert response.route.backend == "cloud"


@in_virtual_time
async def test_an_image_is_staged_once_for_the_whole_cascade() -> None:
    lab = Lab()
    lab.cloud.infer = answer(0.99)
    policy = plan(replace(EDGE_IF_SURE, stages=("decode",)), replace(CLOUD, stages=("decode",)))
    async with lab.running(deployment(policy)) as engine:
        response = await engine.infer(request(IMAGE))
    assert lab.stagings == 1
    assert response.route.backend == "cloud"
    assert response.outputs["scores"].shape == (1, 2)


@in_virtual_time
async def test_when_the_edge_fails_the_cloud_answers_all_and_nothing_is_degraded() -> None:
    lab = Lab()
    lab.edge.infer = fail(BackendFailed("no"))
    lab.cloud.infer = answer(0.99)
    async with lab.running(deployment(CASCADE)) as engine:
        response = await engine.infer(request(rows(0.95, 0.2)))
    assert len(lab.cloud.calls[0].payload["x"]) == 2  # type: ignore[index]
    assert not response.route.degraded
    assert "edge: backend-failed" in response.route.reason
