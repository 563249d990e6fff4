"""Several requests of one turn of the event loop: who shares a run, what each is answered, what is left behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.deployment import Shares
from router.errors import (
    BackendError,
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    DeadlineExceeded,
    InternalError,
    NoBackendAvailable,
    Outcome,
    Overloaded,
)
from router.extras import EXTRAS_AT_ONCE
from router.inline import Begun
from router.model import TensorSpec
from router.plan import Plan
from router.ports import Call, Policy
from router.snapshot import Snapshot
from router.types import Facts, InferenceResponse, Reply
from tests.unit.router.running_inline import InlineLab, answers, by_itself, finished, instance, plain, rows_of
from tests.unit.samples import CLOUD, EDGE, EDGE_IF_SURE, EDGE_USD, MODEL, deployment, plan, request, rows
from tests.unit.standins import FixedPolicy, answer
from tests.unit.virtual_time import in_virtual_time, virtual_loop

ERRORS: dict[float, type[BackendError]] = {
    0.01: BackendFailed,
    0.02: BackendRejectedInput,
    0.03: BackendTimeout,
    0.04: BackendUnavailable,
    0.05: Overloaded,
}
"""What a request fails with whose first number this is."""


def by_its_first_number(call: Call) -> Reply | Exception:
    """Answers, or fails in the way that the request itself asks for."""
    error = ERRORS.get(round(float(rows_of(call)[0, 0]), 2))
    return answers()(call) if error is None else error("as it was asked to")


def summed(response: InferenceResponse) -> tuple[object, ...]:
    """What a client and a bill see of a response, but for the time that it took."""
    route = response.route
    return response.id, response.outputs["scores"].tolist(), route.backend, route.reason, route.attempts


several = st.lists(
    st.lists(st.sampled_from((0.2, 0.95, 0.99, *ERRORS)), min_size=1, max_size=3), min_size=1, max_size=12
)


@given(several, st.sampled_from((plan(EDGE), plan(EDGE, CLOUD), plan(EDGE_IF_SURE, CLOUD))), st.integers(2, 8))
def test_whoever_comes_along_nobody_is_answered_or_accounted_for_otherwise(
    coming: list[list[float]], policy: Policy, limit: int
) -> None:
    async def after(*, together: bool) -> tuple[object, ...]:
        lab = InlineLab()
        lab.edge.does = by_its_first_number
        lab.cloud.infer = answer(0.98, after=0.001)
        # No retries: who gets one of the last is a matter of who comes first.
        async with lab.running(replace(deployment(policy), shares=Shares(retries=0.0))) as engine:
            edge = instance(engine)
            edge.admission.limit._set(limit)
            instance(engine, "cloud").admission.limit._set(100)
            asked = [replace(request(rows(*firsts)), id=f"r{number}") for number, firsts in enumerate(coming)]
            if together:
                results = engine.infer_inline(asked)
                assert lab.edge.runs == [min(limit, len(asked))]
                ended = await asyncio.gather(*(finished(engine, result) for result in results))
            else:
                ended = [await by_itself(engine, one) for one in asked]
            assert edge.admission.in_flight == edge.admission.waiting == 0
            return (
                [summed(end) if isinstance(end, InferenceResponse) else plain(end) for end in ended],
                (lab.seen.ends, len(lab.seen.plans)),
                sorted(repr(plain(failure)) for failure in lab.seen.failures),
                sorted(dropped for _, dropped in edge.breaker._latest),
                sorted(sample[1:] for sample in edge.latency._samples),
                edge.admission.limit._window.samples,
                engine._extras.requests,
            )

    assert in_virtual_time(after)(together=True) == in_virtual_time(after)(together=False)


@in_virtual_time
async def test_requests_of_one_model_share_a_run_and_each_gets_its_own_answer() -> None:
    lab = InlineLab()
    async with lab.running(deployment(plan(EDGE))) as engine:
        instance(engine).admission.limit._set(8)
        asked = [request(rows(*[0.1 * number] * number)) for number in (1, 2, 3)]
        results = engine.infer_inline(asked)
    assert (lab.edge.asked, lab.edge.runs) == ([(3, 24)], [3])
    for one, result in zip(asked, results, strict=True):
        assert isinstance(result, InferenceResponse)
        assert result.id == one.id
        np.testing.assert_array_equal(result.outputs["scores"], one.payload["x"])  # type: ignore[index]
        assert result.route.cost_usd == pytest.approx(len(result.outputs["row"]) * EDGE_USD)
    assert lab.seen.answers == results


@in_virtual_time
async def test_no_more_are_let_in_than_there_is_room_for_and_the_others_come_after() -> None:
    lab = InlineLab()
    async with lab.running(deployment(plan(EDGE))) as engine:
        admission = instance(engine).admission
        most, seen = 0, answers()

        def watched(call: Call) -> Reply | Exception:
            nonlocal most
            most = max(most, admission.in_flight)
            return seen(call)

        lab.edge.does = watched
        limit = admission.limit.value
        results = engine.infer_inline([request() for _ in range(limit + 3)])
        assert [isinstance(result, Begun) for result in results] == [False] * limit + [True] * 3
        ended = await asyncio.gather(*(finished(engine, result) for result in results))
        assert all(isinstance(end, InferenceResponse) for end in ended)
        assert (most, admission.in_flight) == (limit, 0)
    assert lab.seen.ends == (limit + 3, 0, 0)


@in_virtual_time
async def test_a_run_that_breaks_its_contract_is_each_requests_failure_and_leaves_nobody_inside() -> None:
    lab = InlineLab()
    lab.edge.breaks = ZeroDivisionError("a vendor's library")
    async with lab.running(deployment(plan(EDGE, CLOUD))) as engine:
        results = engine.infer_inline([request() for _ in range(3)])
        assert instance(engine).admission.in_flight == 0
        assert instance(engine).breaker._failed_attempts == 3
        for result in results:
            response = await finished(engine, result)
            assert isinstance(response, InferenceResponse)
            first, second = response.route.attempts
            assert (first.error, first.outcome) == ("backend-failed", Outcome.DROPPED)
            assert first.cost_usd == pytest.approx(EDGE_USD)
            assert second.backend == "cloud"


@in_virtual_time
async def test_a_breaker_that_opens_in_the_middle_lets_those_finish_who_are_inside_and_nobody_else_in() -> None:
    lab = InlineLab()

    def does(call: Call) -> Reply | Exception:
        virtual_loop().now += 0.04
        return BackendFailed("broken")

    lab.edge.does = does
    async with lab.running(deployment(plan(EDGE))) as engine:
        edge = instance(engine)
        results = engine.infer_inline([request()])
        results += engine.infer_inline([request() for _ in range(4)])
        assert (edge.breaker.admits, edge.admission.in_flight, len(lab.edge.calls)) == (False, 0, 5)
        ended = [await finished(engine, result) for result in (*results, *engine.infer_inline([request()]))]
        assert len(lab.edge.calls) == 5
    assert all(isinstance(end, NoBackendAvailable) for end in ended)
    assert [attempts[0].error for *_, attempts in lab.seen.failures] == ["backend-failed"] * 5 + ["backend-unavailable"]


@in_virtual_time
async def test_an_answer_that_came_too_late_for_one_is_in_time_for_another() -> None:
    lab = InlineLab()
    lab.edge.does = answers(took_s=0.06)
    async with lab.running(deployment(plan(EDGE))) as engine:
        hasty, patient = engine.infer_inline([request(within_s=0.1), request(within_s=0.4)])
        assert isinstance(hasty, Begun)
        assert isinstance(patient, InferenceResponse)
        assert hasty.first is not None
        assert isinstance(hasty.first[1], BackendTimeout)
        assert instance(engine).admission.limit._window.samples == 2, "what was cut off counts with the time it had"
        assert isinstance(await finished(engine, hasty), DeadlineExceeded)


@in_virtual_time
async def test_the_most_bytes_decide_whether_the_run_is_a_short_one() -> None:
    lab = InlineLab()
    lab.edge.quick = False
    async with lab.running(deployment(plan(EDGE))) as engine:
        results = engine.infer_inline([request(rows(0.1)), request(rows(0.1, 0.2, 0.3)), request(rows(0.1, 0.2))])
        assert lab.edge.asked == [(3, 24)]
        assert all(isinstance(result, Begun) and result.first is None for result in results)
        assert lab.edge.calls == []
        await asyncio.gather(*(finished(engine, result) for result in results))
    assert lab.seen.ends == (3, 0, 0)


@dataclass(frozen=True)
class Picky(FixedPolicy):
    """Fails on large requests."""

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """The attempts as they were given."""
        if facts.payload_bytes > 8:
            raise ZeroDivisionError
        return super().plan(facts, snapshot)


@in_virtual_time
async def test_a_request_that_cannot_be_planned_takes_nothing_from_the_others() -> None:
    lab = InlineLab()
    async with lab.running(deployment(Picky((EDGE,)))) as engine:
        first, bad, last = engine.infer_inline([request(), request(rows(0.1, 0.2)), request()])
    assert isinstance(first, InferenceResponse)
    assert isinstance(bad, InternalError)
    assert isinstance(last, InferenceResponse)
    assert lab.edge.runs == [2]


@in_virtual_time
async def test_a_model_without_rows_is_one_inference_and_costs_one() -> None:
    lab = InlineLab()
    spec = {"x": TensorSpec("float32", (2, 2))}, {"scores": TensorSpec("float32", (2, 2))}
    fixed = replace(MODEL, inputs=spec[0], outputs=spec[1])
    async with lab.running(deployment(plan(EDGE), model=fixed)) as engine:
        results = engine.infer_inline([request(rows(0.1, 0.2)), request(rows(0.3, 0.4))])
    assert [call.rows for call in lab.edge.calls] == [1, 1]
    for result in results:
        assert isinstance(result, InferenceResponse)
        assert result.route.cost_usd == pytest.approx(EDGE_USD)


@in_virtual_time
async def test_an_exploring_order_is_taken_by_the_same_share() -> None:
    lab = InlineLab()
    lab.cloud.infer = answer(after=0.001)
    exploring = replace(plan(CLOUD, EDGE), explore=(EDGE, CLOUD))
    async with lab.running(deployment(exploring)) as engine:
        for _ in range(250):
            results = engine.infer_inline([request() for _ in range(4)])
            await asyncio.gather(*(finished(engine, result) for result in results))
    assert EXTRAS_AT_ONCE <= len(lab.edge.calls) <= 1000 * 0.01 + EXTRAS_AT_ONCE
    assert lab.seen.ends == (1000, 0, 0)
