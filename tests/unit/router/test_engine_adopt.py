"""A policy file that changes while requests are under way: what is kept, what is replaced, what is closed and when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from router.breaker import BreakerState
from router.deployment import Deployment, RouteRule
from router.engine import DeploymentRefused, Engine
from router.errors import BackendFailed, BackendUnavailable, DeadlineExceeded
from router.instance import Instance
from router.model import TensorSpec
from router.pricing import NodePrice
from tests.unit.samples import CLOUD, EDGE, MODEL, deployment, plan, request, rows
from tests.unit.standins import FakeOptions, FakeVariant, Lab, answer, fail, failing_probe, hang, ready
from tests.unit.virtual_time import in_virtual_time


def instances(engine: Engine) -> Mapping[str, Instance]:
    return {backend: target.instance for (_, backend), target in engine._planner.world.generation.targets.items()}


def with_backend(before: Deployment, name: str, **changes: Any) -> Deployment:
    return replace(before, backends={**before.backends, name: replace(before.backends[name], **changes)})


def with_model(before: Deployment, **changes: Any) -> Deployment:
    return replace(before, models={"m": replace(before.models["m"], **changes)})


BEFORE = deployment()
HARMLESS = {
    "nothing": BEFORE,
    "price": with_backend(BEFORE, "cloud", price=NodePrice(9, 9)),
    "site": with_backend(BEFORE, "cloud", site="other-cloud"),
    "slo": with_model(BEFORE, slo_p95_s=0.9, deadline_s=9.0),
    "policy": replace(BEFORE, policies={"p": plan(CLOUD)}),
    "routes": replace(BEFORE, routes=(RouteRule("m", "*", "p"),)),
    "residency": replace(BEFORE, residency={"new": None}),
}


@pytest.mark.parametrize("change", HARMLESS)
@in_virtual_time
async def test_what_did_not_change_keeps_connection_and_health(change: str) -> None:
    lab = Lab()
    async with lab.running(BEFORE) as engine:
        kept = instances(engine)
        lab.cloud.infer = fail(BackendFailed("broken"), after=0.05)
        lab.cloud.probe = failing_probe(BackendFailed("broken"))
        for _ in range(3):
            await engine.infer(request())
        await engine.adopt(HARMLESS[change], must_open=True)
        await asyncio.sleep(0)
        assert instances(engine) == kept
        assert engine.deployment is HARMLESS[change]
        assert engine.snapshot.generation == 2
        assert not engine.snapshot.targets["m", "cloud"].available
        assert (lab.cloud.made, lab.edge.made) == (1, 1)
        assert lab.cloud.closed == lab.edge.closed == []
    assert lab.cloud.closed == lab.edge.closed == ["m/v1", "backend"]


@in_virtual_time
async def test_a_new_price_site_and_policy_hold_for_the_next_request() -> None:
    lab = Lab()
    async with lab.running(BEFORE) as engine:
        assert (await engine.infer(request())).route.backend == "cloud"
        await engine.adopt(with_backend(BEFORE, "cloud", price=NodePrice(7200, 1)), must_open=True)
        assert (await engine.infer(request())).route.cost_usd == pytest.approx(2)
        await engine.adopt(with_backend(BEFORE, "cloud", site="on-premises"), must_open=True)
        response = await engine.infer(request(data_class="phi"))
        assert (response.route.backend, response.route.bytes_out) == ("cloud", 0)
        await engine.adopt(replace(BEFORE, policies={"p": plan(EDGE)}), must_open=True)
        assert (await engine.infer(request())).route.backend == "edge"


@in_virtual_time
async def test_changed_options_make_a_new_backend_and_leave_the_other_alone() -> None:
    lab = Lab()
    async with lab.running(BEFORE) as engine:
        kept = instances(engine)
        await engine.adopt(with_backend(BEFORE, "cloud", options=FakeOptions("cloud", edition=2)), must_open=True)
        await asyncio.sleep(0.01)
        assert instances(engine)["edge"] is kept["edge"]
        assert instances(engine)["cloud"] is not kept["cloud"]
        assert (lab.cloud.made, lab.edge.made) == (2, 1)
        assert lab.cloud.closed == ["m/v1", "backend"]
        assert lab.edge.closed == []
        assert (await engine.infer(request())).route.backend == "cloud"


@pytest.mark.parametrize(
    "after",
    [
        with_model(BEFORE, variants={"edge": FakeVariant(), "cloud": FakeVariant("v2")}),
        with_model(BEFORE, spec=replace(MODEL, outputs=MODEL.outputs | {"more": TensorSpec("int8", (-1,))})),  # type: ignore[operator]
    ],
    ids=["variant", "spec"],
)
@in_virtual_time
async def test_a_changed_model_is_opened_anew_on_the_same_backend(after: Deployment) -> None:
    lab = Lab()
    async with lab.running(BEFORE) as engine:
        before = instances(engine)
        await engine.adopt(after, must_open=True)
        await asyncio.sleep(0.01)
        assert instances(engine)["cloud"] is not before["cloud"]
        assert instances(engine)["cloud"].backend is before["cloud"].backend
        assert lab.cloud.closed == ["m/v1"]


@in_virtual_time
async def test_the_old_is_closed_after_the_last_request_that_uses_it() -> None:
    lab = Lab()
    lab.cloud.infer = answer(0.1, after=0.3)
    async with lab.running(BEFORE) as engine:
        first = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0)
        await engine.adopt(deployment(plan(EDGE), backends=("edge",)), must_open=True)
        assert (await engine.infer(request())).route.backend == "edge"
        assert lab.cloud.closed == []
        assert (await first).route.backend == "cloud"
        await asyncio.sleep(0.01)
        assert lab.cloud.closed == []
        assert (await second).route.backend == "cloud"
        await asyncio.sleep(0.01)
        assert lab.cloud.closed == ["m/v1", "backend"]


@in_virtual_time
async def test_three_generations_with_requests_close_in_order() -> None:
    lab = Lab()
    lab.cloud.infer = answer(0.1, after=0.4)
    async with lab.running(BEFORE) as engine:
        old = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0.1)
        await engine.adopt(with_backend(BEFORE, "cloud", price=NodePrice(9, 9)), must_open=True)
        await engine.adopt(deployment(plan(EDGE), backends=("edge",)), must_open=True)
        await asyncio.sleep(0.1)
        assert lab.cloud.closed == [], "the first generation's request is still on it"
        assert (await old).route.backend == "cloud"
        await asyncio.sleep(0.01)
        assert lab.cloud.closed == ["m/v1", "backend"]


@in_virtual_time
async def test_shutting_down_waits_for_requests_and_closes_everything() -> None:
    lab = Lab()
    lab.cloud.infer = answer(after=0.3)
    async with lab.running(BEFORE) as engine:
        calling = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0.1)
    assert (await calling).route.backend == "cloud"
    assert lab.cloud.closed == lab.edge.closed == ["m/v1", "backend"]
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_a_deployment_that_cannot_be_opened_is_refused_and_the_old_one_goes_on() -> None:
    lab = Lab()
    async with lab.running(deployment(plan(EDGE), backends=("edge",))) as engine:
        kept = instances(engine)
        in_force = engine.deployment
        lab.cloud.open = BackendUnavailable("The model file is missing.")
        with pytest.raises(DeploymentRefused, match=r"models\.m: The model file is missing\."):
            await engine.adopt(BEFORE, must_open=True)
        assert engine.deployment is in_force
        assert engine.snapshot.generation == 1
        assert instances(engine) == kept
        assert lab.cloud.closed == ["backend"]
        assert lab.edge.closed == []
        assert (await engine.infer(request())).route.backend == "edge"


@pytest.mark.parametrize("error", [BackendUnavailable("No such file."), ZeroDivisionError("a vendor's library")])
@in_virtual_time
async def test_at_startup_what_can_be_served_is(error: Exception) -> None:
    lab = Lab()
    lab.cloud.open = error
    async with lab.running(BEFORE) as engine:
        await asyncio.sleep(5)
        view = engine.snapshot.targets["m", "cloud"]
        assert view.breaker is BreakerState.OPEN
        assert str(error) in view.problem
        response = await engine.infer(request())
        assert response.route.backend == "edge"
    assert lab.cloud.calls == []


@in_virtual_time
async def test_what_could_not_be_opened_is_tried_again_whatever_else_changes() -> None:
    lab = Lab()
    lab.cloud.open = BackendUnavailable("No such file.")
    async with lab.running(BEFORE) as engine:
        lab.cloud.open = None
        await engine.adopt(HARMLESS["slo"], must_open=True)
        await asyncio.sleep(3)
        assert (await engine.infer(request())).route.backend == "cloud"
        assert lab.cloud.made == 1


@in_virtual_time
async def test_a_backend_that_fails_to_close_does_not_take_the_engine_with_it() -> None:
    lab = Lab()
    lab.cloud.close = RuntimeError("a vendor's library")
    async with lab.running(BEFORE) as engine:
        await engine.adopt(deployment(plan(EDGE), backends=("edge",)), must_open=True)
        await asyncio.sleep(0.01)
        assert lab.cloud.closed == ["m/v1", "backend"]
        assert (await engine.infer(request())).route.backend == "edge"


@in_virtual_time
async def test_a_backend_that_hangs_while_it_is_probed_does_not_hold_up_the_new_file() -> None:
    lab = Lab()
    lab.cloud.probe = lambda: asyncio.sleep(1e6)
    async with lab.running(BEFORE) as engine:
        assert not engine.snapshot.targets["m", "cloud"].available
        assert engine.snapshot.targets["m", "edge"].available


@in_virtual_time
async def test_the_probes_of_what_is_gone_end() -> None:
    lab = Lab()
    async with lab.running(BEFORE) as engine:
        await engine.adopt(deployment(plan(EDGE), backends=("edge",)), must_open=True)
        lab.cloud.probes.clear()
        lab.edge.probes.clear()
        await asyncio.sleep(5)
        assert lab.cloud.probes == []
        assert len(lab.edge.probes) >= 9


@in_virtual_time
async def test_a_request_that_hangs_on_the_old_keeps_nothing_open_for_ever() -> None:
    lab = Lab()
    lab.cloud.infer = hang
    async with lab.running(deployment(plan(CLOUD))) as engine:
        calling = asyncio.create_task(engine.infer(request(rows(0.5))))
        await asyncio.sleep(0.1)
        await engine.adopt(deployment(plan(EDGE), backends=("edge",)), must_open=True)
        await asyncio.sleep(0.5)
        assert lab.cloud.closed == ["m/v1", "backend"]
        with pytest.raises(DeadlineExceeded):
            await calling


@in_virtual_time
async def test_a_backend_is_closed_after_whoever_was_probing_it_has_learnt_that_it_is() -> None:
    """The probe may be opening what is about to be closed: a device that it took would never be let go."""
    lab, begun = Lab(), asyncio.Event()

    async def probe() -> None:
        begun.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            lab.cloud.closed.append("probe")
            raise

    async with lab.running(BEFORE) as engine:
        lab.cloud.probe = probe
        await begun.wait()
        lab.cloud.probe = ready
        await engine.adopt(with_backend(BEFORE, "cloud", options=FakeOptions("cloud", edition=2)), must_open=True)
        await asyncio.sleep(0.1)
        assert lab.cloud.closed == ["probe", "m/v1", "backend"]
