"""Requests answered on the event loop itself: for each, all is as if it had come the ordinary way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.budget import Budget
from router.deployment import Shares
from router.engine import Engine
from router.errors import (
    BackendFailed,
    BackendRejectedInput,
    BackendTimeout,
    BackendUnavailable,
    NoBackendAvailable,
    Outcome,
    Overloaded,
    ResidencyForbids,
)
from router.inline import Begun
from router.types import InferenceRequest, InferenceResponse
from tests.unit.router.running_inline import (
    Does,
    Ended,
    InlineLab,
    answers,
    at_once,
    by_itself,
    fails,
    finished,
    instance,
    known,
    plain,
)
from tests.unit.samples import (
    CLOUD,
    DEGRADED_EDGE,
    EDGE,
    EDGE_IF_SURE,
    EDGE_USD,
    IMAGE,
    deployment,
    plan,
    request,
    rows,
)
from tests.unit.standins import FakeVariant, answer, fail, hang
from tests.unit.virtual_time import in_virtual_time, virtual_loop

PLANS = {
    "edge": plan(EDGE),
    "degraded edge": plan(DEGRADED_EDGE, CLOUD),
    "edge, then cloud": plan(EDGE, CLOUD),
    "cloud, then edge": plan(CLOUD, EDGE),
    "cascade": plan(EDGE_IF_SURE, CLOUD),
    "cascade of one": plan(EDGE_IF_SURE),
    "hedge": plan(replace(EDGE, hedge_after=0.03), CLOUD),
    "exploring": replace(plan(CLOUD, EDGE), explore=(EDGE, CLOUD)),
    "images": plan(replace(EDGE, stages=("decode",)), replace(CLOUD, stages=("decode",))),
    "nothing": plan(),
}

DOES: dict[str, Callable[[float], Does]] = {
    "answers": answers,
    "answers with a row too many": lambda took_s: answers(took_s, more_rows=1),
    "fails": lambda took_s: fails(BackendFailed("broken"), took_s),
    "rejects": lambda took_s: fails(BackendRejectedInput("not this"), took_s),
    "times out": lambda took_s: fails(BackendTimeout("too slow"), took_s),
    "is unavailable": lambda took_s: fails(BackendUnavailable("gone"), took_s),
    "is overloaded": lambda took_s: fails(Overloaded("busy", retry_after_s=0.5), took_s),
    "breaks its contract": lambda took_s: fails(ZeroDivisionError("a vendor's library"), took_s),
}

CLOUDS = {"answers": answer(0.99), "is unsure": answer(0.2), "fails": fail(BackendFailed("down")), "hangs": hang}


@dataclass(frozen=True)
class Asked:
    """A request of a scene, and what the edge does with it."""

    pause_s: float
    firsts: tuple[float, ...] | None
    within_s: float | None
    data_class: str
    does: str
    took_s: float


asked = st.builds(
    Asked,
    st.sampled_from((0.0013, 0.0013, 0.0537, 0.3173)),
    st.sampled_from(((0.95,), (0.95, 0.9), (0.1,), (0.9, 0.89, 0.95), (0.1, 0.2), (0.95,) * 4, None)),
    st.sampled_from((None, None, None, None, 0.5, 0.2, 0.022, 0.015, 0.0)),
    st.sampled_from(("unclassified", "unclassified", "phi")),
    st.sampled_from(("answers", "answers", "answers", *DOES)),
    st.sampled_from((0.0011, 0.0, 0.0017, 0.0413, 0.4957, 1.0071)),
)


@given(
    st.sampled_from(list(PLANS)),
    st.sampled_from(list(CLOUDS)),
    st.lists(asked, min_size=1, max_size=8),
    st.sampled_from((None, None, None, Budget(usd_per_day=2.5 * EDGE_USD))),
    st.sampled_from((True, True, True, False)),
)
def test_each_request_ends_and_is_accounted_for_as_it_would_be_the_ordinary_way(
    policy: str, cloud: str, coming: list[Asked], budget: Budget | None, quick: bool
) -> None:
    async def after(way: Callable[[Engine, InferenceRequest], Awaitable[Ended]]) -> tuple[object, ...]:
        lab = InlineLab()
        lab.edge.quick = quick
        lab.cloud.infer = CLOUDS[cloud]
        # What breaks its contract is named by backend one way, by variant the other.
        named = {name: FakeVariant(name) for name in ("edge", "cloud")}
        base = replace(deployment(PLANS[policy], variants=named), shares=Shares(explorations=0.5))
        async with lab.running(base if budget is None else replace(base, budgets={"edge": budget})) as engine:
            for name in lab.scripts:  # whose turn it is of two that are due at once is a matter of chance
                instance(engine, name).breaker._next_probe_at = math.inf
            ended = []
            for number, one in enumerate(coming):
                await asyncio.sleep(one.pause_s)  # what is due after a long run is done, whichever way it was
                engine.refresh()
                lab.edge.does = DOES[one.does](one.took_s)
                payload = IMAGE if one.firsts is None else rows(*one.firsts)
                new = request(payload, data_class=one.data_class, within_s=one.within_s)
                ended.append(plain(await way(engine, replace(new, id=f"r{number}"))))
            await asyncio.sleep(0.0013)
            engine.refresh()
            return ended, known(lab), engine.snapshot

    assert in_virtual_time(after)(at_once) == in_virtual_time(after)(by_itself)


@in_virtual_time
async def test_what_is_quick_is_answered_before_the_call_returns() -> None:
    lab = InlineLab()
    async with lab.running(deployment(plan(DEGRADED_EDGE))) as engine:
        asked = request(rows(0.5, 0.7))
        (response,) = engine.infer_inline([asked])
    assert isinstance(response, InferenceResponse)
    assert response.id == asked.id
    assert response.outputs["scores"][:, 0].tolist() == pytest.approx([0.5, 0.7])
    assert (response.route.backend, response.route.variant, response.route.degraded) == ("edge", "v1", True)
    assert response.route.reason == "the test says so"
    assert response.route.cost_usd == pytest.approx(2 * EDGE_USD)
    assert lab.seen.answers == [response]
    assert (lab.edge.asked, lab.edge.runs) == ([(1, 16)], [1])


@in_virtual_time
async def test_the_backend_is_told_what_it_is_told_the_ordinary_way() -> None:
    lab = InlineLab()
    async with lab.running(deployment(plan(EDGE))) as engine:
        asked = replace(request(rows(0.5, 0.7), data_class="phi", within_s=0.3), parameters={"top": 3})
        engine.infer_inline([asked])
        await engine.infer(asked)
    first, second = (replace(call, late=None) for call in lab.edge.calls)
    assert first == second
    assert (first.parameters, first.data_class, first.rows) == ({"top": 3}, "phi", 2)
    assert lab.edge.deadlines[0] == lab.edge.deadlines[1]


@pytest.mark.parametrize(
    "why", ["it is not quick", "an image", "a budget", "an open breaker", "no time", "no room", "others wait"]
)
@in_virtual_time
async def test_what_is_out_of_the_ordinary_is_begun_and_nothing_else(why: str) -> None:
    lab = InlineLab()
    budgets = {"edge": Budget(usd_per_day=1.0)} if why == "a budget" else {}
    base = replace(deployment(plan(replace(EDGE, stages=("decode",)))), budgets=budgets)
    async with lab.running(base) as engine:
        admission = instance(engine).admission
        if why == "it is not quick":
            lab.edge.quick = False
        if why == "an open breaker":
            instance(engine).breaker._open(virtual_loop().time(), "the test says so")
        if why in ("no room", "others wait"):
            admission.in_flight = admission.limit.value
        waiter = None
        if why == "others wait":
            waiter = admission.enter(1, virtual_loop().time() + 1, virtual_loop().time(), 0.0)
            assert waiter is not None
            admission.limit._set(100)
        before = (admission.in_flight, plain(instance(engine).breaker), plain(instance(engine).latency))
        (begun,) = engine.infer_inline(
            [request(IMAGE if why == "an image" else None, within_s=0.0 if why == "no time" else None)]
        )
        assert isinstance(begun, Begun)
        assert begun.first is None
        assert (admission.in_flight, plain(instance(engine).breaker), plain(instance(engine).latency)) == before
        assert lab.edge.calls == []
        assert len(lab.seen.plans) == 1
        assert lab.seen.ends == (0, 0, 0)
        if waiter is not None:
            admission.abandon(waiter, virtual_loop().time())
        admission.in_flight = 0  # those of the test do not leave by themselves
        await finished(engine, begun)
    assert sum(lab.seen.ends) == len(lab.seen.plans) == 1


@in_virtual_time
async def test_an_attempt_that_failed_is_not_made_again_and_the_next_one_follows() -> None:
    lab = InlineLab()
    lab.edge.does = fails(BackendFailed("broken"))
    lab.cloud.infer = answer(0.8)
    async with lab.running(deployment(plan(EDGE, CLOUD))) as engine:
        (begun,) = engine.infer_inline([request()])
        assert isinstance(begun, Begun)
        assert lab.seen.ends == (0, 0, 0)
        response = await engine.go_on(begun)
    assert (len(lab.edge.calls), len(lab.cloud.calls)) == (1, 1)
    assert [(one.backend, one.error, one.outcome, one.role) for one in response.route.attempts] == [
        ("edge", "backend-failed", Outcome.DROPPED, "first"),
        ("cloud", None, Outcome.SUCCESS, "fallback"),
    ]
    assert response.route.reason == "the test says so; edge: backend-failed"


@in_virtual_time
async def test_only_the_unsure_rows_of_an_answer_go_on() -> None:
    lab = InlineLab()
    lab.cloud.infer = answer(0.99)
    async with lab.running(deployment(plan(EDGE_IF_SURE, CLOUD))) as engine:
        (sure,) = engine.infer_inline([request(rows(0.95, 0.9))])
        assert isinstance(sure, InferenceResponse)
        (begun,) = engine.infer_inline([request(rows(0.95, 0.2, 0.3))])
        assert isinstance(begun, Begun)
        response = await engine.go_on(begun)
    assert [call.rows for call in lab.cloud.calls] == [2]
    assert response.outputs["scores"][:, 0].tolist() == pytest.approx([0.95, 0.99, 0.99])
    assert [record.error for record in response.route.attempts] == ["unconfident", None]


@in_virtual_time
async def test_a_failed_attempt_brings_the_snapshot_up_to_date() -> None:
    lab = InlineLab()
    lab.edge.does = fails(BackendFailed("broken"), took_s=0.06)
    async with lab.running(deployment(plan(EDGE))) as engine:
        before = engine.snapshot
        for _ in range(3):
            assert isinstance(await at_once(engine, request()), NoBackendAvailable)
        assert engine.snapshot is not before
        assert not engine.snapshot.targets["m", "edge"].available
        assert lab.seen.ends == (0, 3, 0)


@in_virtual_time
async def test_the_replys_times_stand_in_the_route_and_in_what_is_expected_next() -> None:
    lab = InlineLab()
    lab.edge.does = lambda call: replace(answers()(call), queue_s=0.001, network_s=0.002, compute_s=0.004)
    async with lab.running(deployment(plan(EDGE))) as engine:
        (response,) = engine.infer_inline([request()])
        assert isinstance(response, InferenceResponse)
        (record,) = response.route.attempts
        assert (record.queue_s, record.network_s, record.compute_s) == (0.001, 0.002, 0.004)
        latest = instance(engine).latency._samples[-1]
        assert (latest.network_s, latest.compute_s) == (0.002, 0.005)


@pytest.mark.parametrize(("within_s", "outcome"), [(0.022, Outcome.IGNORE), (0.3, Outcome.DROPPED)])
@in_virtual_time
async def test_a_call_that_was_given_too_little_time_says_nothing_of_the_backend(
    within_s: float, outcome: Outcome
) -> None:
    lab = InlineLab()
    lab.edge.does = fails(BackendTimeout("too slow"))
    async with lab.running(deployment(plan(EDGE))) as engine:
        await at_once(engine, request(within_s=within_s))
    assert lab.seen.failures[0][3][0].outcome is outcome


@in_virtual_time
async def test_data_goes_nowhere_that_it_may_not_go() -> None:
    lab = InlineLab()
    away = deployment(plan(EDGE, CLOUD), residency={"phi": frozenset({"cloud"}), "secret": frozenset()})
    async with lab.running(away) as engine:
        assert isinstance(await at_once(engine, request(data_class="secret")), ResidencyForbids)
        response = await at_once(engine, request(data_class="phi"))
    assert isinstance(response, InferenceResponse)
    assert response.route.backend == "cloud"
    assert lab.edge.calls == []
    assert lab.seen.blocked == [("edge", "secret"), ("cloud", "secret"), ("edge", "phi")]
