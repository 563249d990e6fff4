"""How often many models on one backend are probed: a few of them as ever, many no more often together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.breaker import ATTEMPTS_TO_OPEN, CHECK_INTERVAL_S, LONGEST_WAIT_S, RUN_S, Breaker, BreakerState
from router.deployment import Deployment
from router.engine import Engine
from router.errors import BackendLost, Outcome
from router.instance import CONNECT_TIMEOUT_S, PROBE_TIMEOUT_S, Instance
from router.probe_pace import AT_A_TIME, NEWS_PER_S, ProbePace
from tests.unit.samples import CLOUD, deployment, plan, request
from tests.unit.standins import Lab, fail, ready, silent, slow_probe
from tests.unit.virtual_time import in_virtual_time

MINUTE_S = 60
PROBES_PER_S = AT_A_TIME / CHECK_INTERVAL_S


def of_many(models: int) -> Deployment:
    """So many models on both backends, of which the first is `m`."""
    one = deployment(plan(CLOUD))
    (entry,) = one.models.values()
    specs = [replace(entry.spec, name=name) for name in ("m", *(f"m{number}" for number in range(1, models)))]
    return replace(one, models={spec.name: replace(entry, spec=spec) for spec in specs})


def open_of_cloud(engine: Engine) -> int:
    """How many breakers of the cloud's models are open."""
    targets = engine.snapshot.targets.items()
    return sum(view.breaker is not BreakerState.CLOSED for (_, backend), view in targets if backend == "cloud")


@pytest.mark.parametrize("models", [1, AT_A_TIME, AT_A_TIME + 1, 2 * AT_A_TIME, 50, 300])
@in_virtual_time
async def test_at_rest_a_backend_is_probed_no_more_often_because_of_many_models(models: int) -> None:
    lab = Lab()
    async with lab.running(of_many(models)):
        await asyncio.sleep(MINUTE_S)
        lab.cloud.probes.clear()
        await asyncio.sleep(MINUTE_S)
        each = min(1 / CHECK_INTERVAL_S, PROBES_PER_S / models)
        readiness = lab.cloud.probes.count(False)
        assert readiness == pytest.approx(MINUTE_S * each * models, rel=0.05, abs=models)


@pytest.mark.parametrize("models", [1, 50, 120])
@in_virtual_time
async def test_a_backend_that_falls_silent_and_comes_back_does_so_with_all_its_models(models: int) -> None:
    lab = Lab()
    spread = models / NEWS_PER_S
    async with lab.running(of_many(models)) as engine:
        for quiet in (0.05, 1.0, 7.0):
            await asyncio.sleep(quiet)
            assert open_of_cloud(engine) == 0
            lab.cloud.probe = silent
            await asyncio.sleep(2 * CHECK_INTERVAL_S + 3 * PROBE_TIMEOUT_S + spread)
            assert open_of_cloud(engine) == models
            await asyncio.sleep(quiet)
            lab.cloud.probe = ready
            await asyncio.sleep(CONNECT_TIMEOUT_S + LONGEST_WAIT_S + CHECK_INTERVAL_S + spread)
            assert open_of_cloud(engine) == 0


@in_virtual_time
async def test_one_that_users_found_to_be_gone_is_probed_at_once_though_it_is_one_of_many() -> None:
    lab = Lab()
    async with lab.running(of_many(300)) as engine:
        await asyncio.sleep(MINUTE_S)
        lab.cloud.infer = fail(BackendLost("reset"), after=1.1 * RUN_S)
        lab.cloud.probe = slow_probe(CHECK_INTERVAL_S / 2)
        await asyncio.gather(*(engine.infer(request()) for _ in range(ATTEMPTS_TO_OPEN)), return_exceptions=True)
        await asyncio.gather(*(engine.infer(request()) for _ in range(ATTEMPTS_TO_OPEN)), return_exceptions=True)
        assert open_of_cloud(engine) == 1
        await asyncio.sleep(CHECK_INTERVAL_S)
        assert open_of_cloud(engine) == 0


@in_virtual_time
async def test_one_that_is_left_of_many_is_probed_as_often_as_one() -> None:
    lab = Lab()
    async with lab.running(of_many(300)) as engine:
        await asyncio.sleep(MINUTE_S)
        await engine.adopt(of_many(1), must_open=False)
        await asyncio.sleep(2 * CHECK_INTERVAL_S)
        lab.cloud.probes.clear()
        await asyncio.sleep(10 * CHECK_INTERVAL_S)
        assert len(lab.cloud.probes) >= 9


@dataclass(eq=False)
class Probed:
    """What the pace sees of an instance, and what becomes of its probes."""

    healthy: bool
    breaker: Breaker = field(default_factory=lambda: Breaker(0.0))
    alarm: asyncio.Event = field(default_factory=asyncio.Event)

    def probe(self, now: float) -> None:
        """Probes it, which takes no time."""
        self.breaker.begin_probe()
        if self.healthy:
            self.breaker.probe_succeeded(now)
        else:
            self.breaker.probe_failed(now, 0.5, "ill")


def test_a_probe_that_was_under_way_when_there_was_news_does_not_count() -> None:
    pace, instances = ProbePace(), [Probed(healthy=True) for _ in range(50)]
    asked, ill, *others = known = cast(list[Any], instances)
    for one in known:
        one.probe(0.0)
        pace.join(one, 0.0)
    now = max(pace.due_at(asked), pace.due_at(ill))  # both are being probed
    ill.healthy = False
    ill.probe(now)
    pace.probed(ill, now)
    asked.probe(now + 0.001)
    pace.probed(asked, now + 0.001)
    assert pace.due_at(asked) == asked.breaker.next_probe_at
    assert max(map(pace.due_at, others)) <= now + CHECK_INTERVAL_S + len(known) / NEWS_PER_S


events = st.lists(
    st.tuples(st.integers(0, 39), st.sampled_from(["falls ill", "gets well", "users find it gone"]), st.floats(0, 20)),
    max_size=6,
)


@given(st.integers(1, 40), events)
def test_whatever_becomes_of_some_each_is_probed_in_time_and_all_together_not_too_often(
    count: int, happens: list[tuple[int, str, float]]
) -> None:
    pace, now = ProbePace(), 0.0
    instances = [Probed(healthy=True) for _ in range(count)]
    known = cast(list[Any], instances)
    for instance in instances:
        instance.probe(now)
        pace.join(cast(Instance, instance), now)
    coming = sorted(happens, key=lambda event: event[2], reverse=True)
    probes = 0
    while now < 30:
        due, who = min((pace.due_at(one), place) for place, one in enumerate(known))
        assert all(pace.due_at(one) >= one.breaker.next_probe_at for one in known)
        if coming and coming[-1][2] <= due:
            place, what, now = coming.pop()
            one = instances[place % count]
            was_well = one.breaker.admits
            if what == "users find it gone":
                for step in (0.0, RUN_S, 1.1 * RUN_S):
                    one.breaker.attempt_ended(Outcome.DROPPED, now + step)
                now += 1.1 * RUN_S
                pace.looked_at(cast(Instance, one), now)
                if was_well and not one.breaker.admits:
                    assert pace.due_at(cast(Instance, one)) == max(one.breaker.next_probe_at, now)
            else:
                one.healthy = what == "gets well"
        else:
            now = max(now, due)
            one = instances[who]
            was = one.breaker.admits
            one.probe(now)
            pace.probed(cast(Instance, one), now)
            probes += 1
            if one.breaker.admits is not was:
                soon = now + count / NEWS_PER_S
                assert all(
                    pace.due_at(other) <= max(other.breaker.next_probe_at, soon) for other in known if other is not one
                )
    turbulent = len(happens) * (2 * count + 60)
    assert probes <= 30 * PROBES_PER_S + count + turbulent
