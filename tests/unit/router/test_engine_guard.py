"""The rules that no policy can break: where data goes, and what a caller hears when it may go nowhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from router.deployment import RouteRule
from router.errors import InternalError, InvalidField, NoBackendAvailable, ResidencyForbids, UnknownModel
from router.plan import Attempt, Plan
from router.ports import Policy
from router.snapshot import Snapshot
from router.types import Facts
from tests.unit.samples import CLOUD, EDGE, deployment, plan, request
from tests.unit.standins import Lab, failing_probe
from tests.unit.virtual_time import in_virtual_time

NOBODY = Attempt("no-such-backend", "v1")


@in_virtual_time
async def test_an_evil_policy_reaches_no_forbidden_backend() -> None:
    lab = Lab()
    evil = plan(CLOUD, NOBODY, EDGE, CLOUD)
    async with lab.running(deployment(evil)) as engine:
        response = await engine.infer(request(data_class="phi"))
    assert lab.cloud.calls == []
    assert response.route.backend == "edge"
    assert response.route.bytes_out == 0
    assert [record.backend for record in response.route.attempts] == ["edge"]
    assert ("cloud", "phi") in lab.seen.blocked
    assert "cloud" in response.route.reason
    assert "'phi'" in response.route.reason


@in_virtual_time
async def test_an_evil_policy_that_names_nothing_else_gets_nobody_to_answer() -> None:
    lab = Lab()
    async with lab.running(deployment(plan(CLOUD, NOBODY))) as engine:
        with pytest.raises(NoBackendAvailable):
            await engine.infer(request(data_class="phi"))
    assert lab.cloud.calls == lab.edge.calls == []
    assert lab.seen.ends == (0, 1, 0)


@in_virtual_time
async def test_each_request_tells_the_observer_what_was_blocked() -> None:
    lab = Lab()
    async with lab.running(deployment(plan(CLOUD, EDGE))) as engine:
        for _ in range(3):
            await engine.infer(request(data_class="phi"))
        await engine.infer(request())
    assert lab.seen.blocked == [("cloud", "phi")] * 3


@in_virtual_time
async def test_a_plan_is_not_shared_between_data_classes() -> None:
    lab = Lab()
    async with lab.running(deployment(plan(CLOUD, EDGE))) as engine:
        assert (await engine.infer(request())).route.backend == "cloud"
        assert (await engine.infer(request(data_class="phi"))).route.backend == "edge"
        assert (await engine.infer(request())).route.backend == "cloud"


@in_virtual_time
async def test_data_that_may_go_nowhere_is_forbidden_and_not_merely_unavailable() -> None:
    lab = Lab()
    residency = {"phi": frozenset({"on-premises"}), "nowhere": frozenset[str]()}
    only_cloud = deployment(plan(CLOUD), backends=("cloud",), residency=residency)
    async with lab.running(only_cloud) as engine:
        for data_class, sites in (("phi", "on-premises"), ("nowhere", "no site")):
            with pytest.raises(ResidencyForbids, match=f"'{data_class}' may go to {sites} only") as caught:
                await engine.infer(request(data_class=data_class))
            assert caught.value.http_status == 403
            assert caught.value.retry_after_s is None
    assert lab.cloud.calls == []
    assert lab.seen.ends == (0, 2, 0)


@dataclass(frozen=True)
class OnlyWhoIsUp(Policy):
    """Plans whoever is up."""

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """One attempt on each candidate that is available."""
        up = [target for target in snapshot.candidates(facts) if target.available]
        return Plan(tuple(Attempt(target.backend, target.variant) for target in up), "whoever is up")


@in_virtual_time
async def test_when_all_are_down_the_caller_hears_when_to_come_again() -> None:
    lab = Lab()
    lab.edge.probe = lab.cloud.probe = failing_probe(RuntimeError("gone"))
    async with lab.running(deployment(OnlyWhoIsUp())) as engine:
        with pytest.raises(NoBackendAvailable, match="m: whoever is up") as caught:
            await engine.infer(request())
    assert caught.value.http_status == 503
    assert caught.value.retry_after_s == pytest.approx(0.25 * 0.9)
    assert lab.edge.calls == lab.cloud.calls == []


@in_virtual_time
async def test_an_unknown_data_class_loses_no_protection() -> None:
    lab = Lab()
    async with lab.running(deployment()) as engine:
        assert engine.data_class(None) == "unclassified"
        assert engine.data_class("phi") == "phi"
        for name in ("phl", "", "PHI", " phi", "*", "x" * 10_000):
            with pytest.raises(InvalidField, match="known are phi, unclassified") as caught:
                engine.data_class(name)
            assert caught.value.field == "data_class"
            assert len(caught.value.detail) < 500


@in_virtual_time
async def test_an_unknown_model_is_suggested() -> None:
    lab = Lab()
    named = deployment()
    model = replace(named.models["m"].spec, name="digits")
    named = replace(named, models={"digits": replace(named.models["m"], spec=model)})
    async with lab.running(named) as engine:
        assert engine.model("digits").spec is model
        with pytest.raises(UnknownModel, match=r"no model 'digit'\. Did you mean 'digits'\?") as caught:
            engine.model("digit")
        assert caught.value.extra == {"known_models": ["digits"]}
        with pytest.raises(UnknownModel) as caught:
            engine.model("?" * 10_000)
        assert len(caught.value.detail) < 500


@in_virtual_time
async def test_without_a_route_nobody_is_asked() -> None:
    lab = Lab()
    async with lab.running(deployment(routes=(RouteRule("*", "unclassified", "p"),))) as engine:
        with pytest.raises(NoBackendAvailable, match="no route matches model 'm' with data class 'phi'"):
            await engine.infer(request(data_class="phi"))
    assert lab.edge.calls == lab.cloud.calls == []


@dataclass(frozen=True)
class Broken(Policy):
    """Has a bug."""

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """Raises."""
        raise ZeroDivisionError


@in_virtual_time
async def test_a_policy_with_a_bug_is_an_error_of_ours_and_asks_nobody() -> None:
    lab = Lab()
    async with lab.running(deployment(Broken())) as engine:
        with pytest.raises(InternalError, match="Policy 'p' failed"):
            await engine.infer(request())
        await engine.adopt(deployment(), must_open=True)
        assert (await engine.infer(request())).route.backend == "cloud"
    assert len(lab.cloud.calls) == 1
