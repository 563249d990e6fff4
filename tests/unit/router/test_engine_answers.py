"""Answers that are not what was asked for: too few rows, too late, or none of a backend's making."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.errors import BackendFailed, DeadlineExceeded, InternalError, Outcome
from router.plan import Plan
from router.ports import Call, Policy
from router.snapshot import Snapshot
from router.types import Facts, Reply
from tests.unit.samples import CLOUD, EDGE, EDGE_IF_SURE, deployment, plan, request, rows
from tests.unit.standins import Lab, answer
from tests.unit.virtual_time import in_virtual_time, virtual_loop


async def one_row_only(call: Call) -> Reply:
    """A backend that loses rows."""
    reply = await answer()(call)
    return replace(reply, outputs={name: tensor[:1] for name, tensor in reply.outputs.items()})


@in_virtual_time
async def test_rows_that_are_missing_fail_the_attempt_and_the_next_one_answers() -> None:
    lab = Lab()
    lab.cloud.infer = one_row_only
    async with lab.running(deployment(plan(CLOUD, EDGE))) as engine:
        response = await engine.infer(request(rows(0.1, 0.2, 0.3)))
    assert response.route.backend == "edge"
    assert len(response.outputs["scores"]) == 3
    assert (response.route.attempts[0].outcome, response.route.attempts[0].error) == (
        Outcome.DROPPED,
        BackendFailed.code,
    )


@in_virtual_time
async def test_one_row_is_never_spread_over_the_others_of_a_cascade() -> None:
    lab = Lab()
    lab.cloud.infer = one_row_only
    async with lab.running(deployment(plan(EDGE_IF_SURE, CLOUD))) as engine:
        response = await engine.infer(request(rows(0.1, 0.2, 0.3)))
    assert response.route.degraded
    assert response.outputs["scores"][:, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])


@in_virtual_time
async def test_an_answer_after_the_deadline_is_none() -> None:
    lab = Lab()

    async def blocks(call: Call) -> Reply:
        virtual_loop().now += 1.0  # a model that holds the event loop, where no time limit can reach it
        return Reply({"scores": rows(0.5)["x"], "row": np.arange(1)}, 0.0, 0.0, 1.0)

    lab.edge.infer = blocks
    async with lab.running(deployment(plan(EDGE))) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.infer(request(within_s=0.5))
    assert lab.seen.ends == (0, 1, 0)


class Broken(Policy):
    """A policy with a defect."""

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """Fails."""
        raise ZeroDivisionError("a policy's own")


@in_virtual_time
async def test_a_policys_defect_is_an_internal_error_and_the_engine_goes_on() -> None:
    lab = Lab()
    good = deployment(plan(EDGE))
    name = next(iter(good.policies))
    async with lab.running(replace(good, policies={name: Broken()})) as engine:
        with pytest.raises(InternalError, match=f"Policy '{name}' failed"):
            await engine.infer(request())
        await engine.adopt(good, must_open=True)
        assert (await engine.infer(request())).route.backend == "edge"
