"""`POST /route/explain`: the plan and its prediction, with nothing executed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from app.codec.explanation import explain
from router.plan import MARGIN_S
from tests.unit.samples import (
    CLOUD,
    CLOUD_USD,
    CLOUD_USD_PER_BYTE,
    DEGRADED_EDGE,
    EDGE_IF_SURE,
    EDGE_USD,
    IMAGE,
    deployment,
    plan,
    request,
    rows,
)
from tests.unit.standins import FakeVariant, Lab, failing_probe
from tests.unit.virtual_time import in_virtual_time


@in_virtual_time
async def test_the_plan_its_prediction_and_its_cost() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        told: dict[str, Any] = json.loads(explain(engine, request(rows(0.1, 0.2), within_s=0.25)))
    assert (told["model"], told["data_class"], told["policy"], told["generation"]) == ("m", "unclassified", "p", 1)
    assert told["deadline_ms"] == 250
    assert told["reason"] == "the test says so"
    cloud, edge = told["plan"]
    assert (cloud["backend"], cloud["site"], cloud["degraded"], cloud["bytes_out"]) == ("cloud", "cloud", False, 16)
    assert cloud["cost_usd"] == pytest.approx(2 * CLOUD_USD + 16 * CLOUD_USD_PER_BYTE)
    assert cloud["predicted"] == {"p50_ms": 10.0, "p95_ms": 10.0, "p99_ms": 10.0}
    assert cloud["reserve_ms"] == pytest.approx(10 + 2 * MARGIN_S * 1000)
    assert (edge["backend"], edge["degraded"], edge["bytes_out"]) == ("edge", True, 0)
    assert edge["cost_usd"] == pytest.approx(2 * EDGE_USD)
    assert told["left_out"] == []
    assert lab.edge.calls == lab.cloud.calls == []
    assert lab.seen.ends == (0, 0, 0)


@in_virtual_time
async def test_a_threshold_and_the_models_own_deadline() -> None:
    lab = Lab()
    async with lab.running(deployment(plan(EDGE_IF_SURE), deadline_s=0.7)) as engine:
        told = json.loads(explain(engine, request()))
    assert told["plan"][0]["accept_if"] == {"confidence": 0.9}
    assert told["deadline_ms"] == pytest.approx(700)
    assert told["left_out"] == [{"backend": "cloud", "why": "the policy does not need it"}]


@in_virtual_time
async def test_who_is_left_out_and_why() -> None:
    lab = Lab()
    lab.edge.probe = failing_probe(RuntimeError("no answer"))
    async with lab.running(deployment(plan(CLOUD))) as engine:
        told = json.loads(explain(engine, request(data_class="phi")))
    assert told["plan"] == []
    assert told["left_out"] == [
        {"backend": "edge", "why": "probing it failed: no answer"},
        {"backend": "cloud", "why": "data class 'phi' may not go to cloud"},
    ]


@in_virtual_time
async def test_what_is_left_of_an_image_after_its_stages_is_not_known_yet() -> None:
    lab = Lab()
    variants = {"edge": FakeVariant(), "cloud": FakeVariant(takes_image=True)}
    staged = plan(CLOUD, replace(CLOUD, stages=("decode",)), replace(DEGRADED_EDGE, stages=("decode",)))
    async with lab.running(deployment(staged, variants=variants)) as engine:
        as_it_is, in_stages, here = json.loads(explain(engine, request(IMAGE)))["plan"]
    assert as_it_is["bytes_out"] == len(IMAGE.content)
    assert in_stages["bytes_out"] is None
    assert here["bytes_out"] == 0
    assert lab.stagings == 0
