"""What must harm nobody on the event loop: a policy file that changes, clients that leave, broken backends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from router.deployment import BackendEntry
from router.errors import (
    BackendError,
    BackendFailed,
    BackendUnavailable,
    InternalError,
    NoBackendAvailable,
    ResidencyForbids,
)
from router.inline import Begun
from router.plan import AcceptIf
from router.ports import Backend, Call
from router.types import InferenceResponse, Reply
from tests.unit.router.running_inline import (
    InlineBackend,
    InlineLab,
    InlineServable,
    answers,
    at_once,
    by_itself,
    fails,
    finished,
    instance,
)
from tests.unit.samples import CLOUD, EDGE, deployment, plan, request, rows
from tests.unit.standins import answer
from tests.unit.virtual_time import in_virtual_time


@in_virtual_time
async def test_what_a_begun_request_needs_stays_open_until_it_has_ended() -> None:
    lab = InlineLab()
    lab.cloud.infer = answer(0.1, after=0.3)
    async with lab.running(deployment(plan(CLOUD))) as engine:
        (begun,) = engine.infer_inline([request()])
        assert isinstance(begun, Begun)
        await engine.adopt(deployment(plan(EDGE), backends=("edge",)), must_open=True)
        going_on = asyncio.create_task(engine.go_on(begun))
        await asyncio.sleep(0.1)
        assert lab.cloud.closed == []
        assert (await going_on).route.backend == "cloud"
        await asyncio.sleep(0.01)
        assert lab.cloud.closed == ["m/v1", "backend"]


@in_virtual_time
async def test_a_client_that_leaves_before_its_request_goes_on_is_counted_and_what_it_cost() -> None:
    lab = InlineLab()
    lab.edge.does = fails(BackendFailed("broken"))
    async with lab.running(deployment(plan(EDGE, CLOUD))) as engine:
        (begun,) = engine.infer_inline([request()])
        assert isinstance(begun, Begun)
        task = asyncio.create_task(engine.go_on(begun))
        task.add_done_callback(lambda _: engine.abandon(begun))
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert lab.seen.ends == (0, 0, 1)
        assert [record.backend for record in lab.seen.hang_ups[0][2]] == ["edge"]
        assert engine._planner.world.generation.leases.count == 0


@in_virtual_time
async def test_a_refusal_is_what_it_was_when_the_request_was_begun() -> None:
    lab = InlineLab()
    async with lab.running(deployment(plan(EDGE), residency={"secret": frozenset()})) as engine:
        (result,) = engine.infer_inline([request(data_class="secret")])
        await engine.adopt(deployment(plan(EDGE), residency={}), must_open=True)
        assert isinstance(await finished(engine, result), ResidencyForbids)


def without_rows(call: Call) -> Reply:
    return Reply({"scores": np.zeros((2, 2), np.float32)}, 0.0, 0.0, 0.0)


@in_virtual_time
async def test_an_answer_without_an_output_fails_its_own_request_only_and_leaves_nobody_inside() -> None:
    lab = InlineLab()
    lab.edge.does = lambda call: (without_rows if call.rows == 2 else answers())(call)
    async with lab.running(deployment(plan(EDGE))) as engine:
        results = engine.infer_inline([request(), request(rows(0.1, 0.2)), request()])
        ended = [await finished(engine, result) for result in results]
        assert instance(engine).admission.in_flight == 0
        ordinary = await by_itself(engine, request(rows(0.1, 0.2)))
    assert [type(end) for end in ended] == [InferenceResponse, type(ordinary), InferenceResponse]
    assert lab.seen.ends == (2, 2, 0)


class Miscounting(InlineServable):
    def infer_inline(self, calls: Sequence[Call], deadlines: Sequence[float]) -> list[Reply | BackendError]:
        return super().infer_inline(calls, deadlines)[:-1]


class Nervous(InlineServable):
    def runs_inline(self, calls: int, payload_bytes: int) -> bool:
        raise ZeroDivisionError("a vendor's library")


@pytest.mark.parametrize("kind", [Miscounting, Nervous])
@in_virtual_time
async def test_a_servable_that_breaks_its_contract_leaves_nobody_without_an_answer(kind: type[InlineServable]) -> None:
    class Odd(InlineBackend):
        async def open(self, model: object, variant: object) -> InlineServable:
            return kind(self.script, "v1")

    class OddLab(InlineLab):
        def _make(self, entry: BackendEntry) -> Backend:
            return Odd(entry.options, self.scripts) if entry.options.name == "edge" else super()._make(entry)

    lab = OddLab()
    async with lab.running(deployment(plan(EDGE, CLOUD))) as engine:
        results = engine.infer_inline([request() for _ in range(3)])
        ended = [await finished(engine, result) for result in results]
        assert instance(engine).admission.in_flight == 0
    assert [type(end) for end in ended] == [InferenceResponse] * 3


@in_virtual_time
async def test_confidences_that_cannot_be_read_are_the_requests_own_failure() -> None:
    lab = InlineLab()
    lab.edge.does = lambda call: (
        Reply({"scores": np.zeros((call.rows, 0), np.float32), "row": np.arange(call.rows)}, 0.0, 0.0, 0.0)
        if call.rows == 2
        else answers()(call)
    )
    async with lab.running(deployment(plan(replace(EDGE, accept_if=AcceptIf(0.5))))) as engine:
        results = engine.infer_inline([request(), request(rows(0.1, 0.2))])
        ended = [await finished(engine, result) for result in results]
        ordinary = await by_itself(engine, request(rows(0.1, 0.2)))
    assert [type(end) for end in ended] == [InferenceResponse, type(ordinary)] == [InferenceResponse, InternalError]


@in_virtual_time
async def test_a_plan_of_nothing_but_another_order_is_refused_either_way() -> None:
    ends = []
    for way in (by_itself, at_once):
        lab = InlineLab()
        async with lab.running(deployment(replace(plan(), explore=(EDGE,)))) as engine:
            ends.append(type(await way(engine, request())))
    assert ends == [NoBackendAvailable, NoBackendAvailable]


@pytest.mark.parametrize("error", [BackendUnavailable("stale")])
@in_virtual_time
async def test_what_is_asked_once_more_the_ordinary_way_is_asked_once_more(error: Exception) -> None:
    roles = []
    for way in (by_itself, at_once):
        lab = InlineLab()
        base = deployment(plan(EDGE))
        away = replace(base, backends={**base.backends, "edge": replace(base.backends["edge"], site="cloud")})
        failed: list[Call] = []

        def once(call: Call, failed: list[Call] = failed) -> Reply | Exception:
            failed.append(call)
            return error if len(failed) == 1 else answers()(call)

        lab.edge.does = once
        async with lab.running(away) as engine:
            end = await way(engine, request())
        roles.append([r.role for r in end.route.attempts] if isinstance(end, InferenceResponse) else type(end))
    assert roles[0] == roles[1]


@in_virtual_time
async def test_runs_one_after_the_other_do_not_shrink_the_limit() -> None:
    """Each of four calls that a servable runs in turn took its own time, not that of all four."""
    limits = []
    for together in (False, True):
        lab = InlineLab()
        lab.edge.does = answers(took_s=0.0002)
        lab.edge.at_once = 1
        async with lab.running(deployment(plan(EDGE))) as engine:
            for number in range(200):
                asked = [request() for _ in range(1 if number < 60 else 4)]
                if together:
                    for result in engine.infer_inline(asked):
                        await finished(engine, result)
                else:
                    await asyncio.gather(*(by_itself(engine, one) for one in asked))
                await asyncio.sleep(0.001)
            limits.append(instance(engine).admission.limit.value)
    assert limits[1] >= limits[0], limits


@in_virtual_time
async def test_the_error_names_the_backend() -> None:
    details = []
    for way in (by_itself, at_once):
        lab = InlineLab()
        lab.edge.does = fails(ZeroDivisionError("oops"), took_s=0.06)
        async with lab.running(deployment(plan(EDGE))) as engine:
            for _ in range(3):
                await way(engine, request())
            details.append(instance(engine).breaker.reason)
    assert details[0] == details[1]
