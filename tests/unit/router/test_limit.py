"""The limit's invariants, and how it does before simulated servers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.admission import Admission
from router.limit import DEEPEST, LEAST_SAMPLES, TOLERANCE, ConcurrencyLimit
from tests.unit.router.queueing import Server, Traffic
from tests.unit.virtual_time import in_virtual_time

SERVICE_S = 0.02
DEADLINE_S = 0.5

latencies = st.floats(0.0001, 10)


class LimitMachine(RuleBasedStateMachine):
    """Calls of any kind, in any order. The model: the bounds, and whether half of the limit was used of late."""

    @initialize(least=st.integers(1, 5), more=st.integers(0, 10), most=st.integers(0, 100))
    def starts(self, least: int, more: int, most: int) -> None:
        self.least, self.most = least, least + more + most
        self.limit = ConcurrencyLimit(least + more, least, self.most)
        self.now = 1000.0
        self.unused = 0

    @rule(calls=st.integers(1, 150), latency=latencies, share=st.floats(0, 1))
    def calls_end(self, calls: int, latency: float, share: float) -> None:
        self.now += 100.0  # what began before the latest decrease, or soon after, would not count
        for _ in range(calls):
            self.now += 50.0  # so that each began long after the last decrease, and counts
            before = self.limit.value
            in_flight = max(1, round(share * before))
            self.limit.sampled(self.now, latency, in_flight)
            self.unused = 0 if 2 * in_flight >= before else self.unused + 1
            if self.unused >= 2 * max(before, LEAST_SAMPLES):
                assert self.limit.value == before, "what is not used is left as it is"

    @invariant()
    def it_stays_within_its_bounds(self) -> None:
        assert self.least <= self.limit.value <= self.most


TestLimit = LimitMachine.TestCase


@given(st.integers(0, 2**32), latencies)
def test_jitter_does_not_shrink_it(seed: int, fastest: float) -> None:
    random, limit, now = Random(seed), ConcurrencyLimit(), 1000.0
    for _ in range(1000):
        now += 1.0
        before = limit.value
        limit.sampled(now, random.uniform(fastest, TOLERANCE * fastest), limit.value)
        assert limit.value >= before


def test_it_grows_while_it_is_used_and_nothing_queues() -> None:
    limit = ConcurrencyLimit()
    for call in range(10_000):
        limit.sampled(1000 + call * 0.01, SERVICE_S, limit.value)
    assert limit.value == 256


def test_a_long_line_is_found_out_in_a_few_windows_until_it_was_too_much_once() -> None:
    limit = ConcurrencyLimit()
    now = 0.0
    for _ in range(4 * 64):
        now += 0.1
        limit.sampled(now, 0.1, limit.value)
    assert limit.value >= 64
    while limit.value >= 64:
        now += 1.0
        limit.sampled(now, 1.0, limit.value)
    before = limit.value
    for _ in range(64):
        now += 0.1
        limit.sampled(now, 0.1, limit.value)
    assert before <= limit.value < 2 * before


def test_it_does_not_grow_while_less_than_half_of_it_is_used() -> None:
    limit = ConcurrencyLimit(first=8)
    for call in range(10_000):
        limit.sampled(1000 + call * 0.01, SERVICE_S, 3)
    assert limit.value == 8


def test_a_single_slow_window_does_not_shrink_it_to_nothing() -> None:
    limit = ConcurrencyLimit(first=100, most=100)
    for call in range(1000):
        limit.sampled(1000 + call * 0.01, SERVICE_S, 100)
    for call in range(100):
        limit.sampled(1010 + call * 0.01, 60.0, 100)
    assert limit.value == int(100 * DEEPEST)


@pytest.mark.parametrize("bounds", [(4, 5, 10), (4, 0, 10), (11, 2, 10)])
def test_bounds_that_make_no_sense_are_refused(bounds: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="is required"):
        ConcurrencyLimit(*bounds)


def exponential(random: Random) -> Callable[[], float]:
    return lambda: random.expovariate(1 / SERVICE_S)


def offer(load: float, seconds: float, workers: int, service: Callable[[], float], seed: int) -> Traffic:
    """The traffic of so many seconds, at `load` times what the server can do."""
    admission = Admission(ConcurrencyLimit(), most_waiting=64)
    traffic = Traffic(admission, Server(workers, service), load * workers / SERVICE_S, DEADLINE_S, Random(seed))

    @in_virtual_time
    async def run() -> None:
        await traffic.run(seconds)

    run()
    assert admission.in_flight == admission.waiting == 0
    assert traffic.offered == traffic.refused + len(traffic.late) + len(traffic.answered)
    return traffic


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("varies", [True, False])
def test_an_overload_of_ten_times_does_not_cost_goodput(workers: int, varies: bool) -> None:
    seconds, warm_up = 12.0, 3.0
    goodput = {}
    for load in (0.5, 1.0, 10.0):
        random = Random(workers)
        traffic = offer(load, seconds, workers, exponential(random) if varies else lambda: SERVICE_S, seed=7)
        start = traffic.limits[0][0] + warm_up
        in_time = sum(ended >= start for ended, _ in traffic.answered)
        late = sum(ended >= start for ended in traffic.late)
        assert late <= 0.01 * in_time, "P99 of those let in is within the deadline"
        goodput[load] = in_time / (seconds - warm_up)
        if load > 1:
            limits = [limit for at, limit in traffic.limits if at >= start]
            assert workers * 0.6 <= sum(limits) / len(limits) <= workers * 3
    assert goodput[10.0] >= 0.8 * max(goodput.values())
    assert goodput[10.0] >= 0.8 * workers / SERVICE_S
    assert goodput[0.5] >= 0.45 * workers / SERVICE_S


def test_a_backend_that_became_slower_is_not_throttled_for_long() -> None:
    took = SERVICE_S
    admission = Admission(ConcurrencyLimit(), most_waiting=64)
    traffic = Traffic(admission, Server(1000, lambda: took), 500.0, DEADLINE_S, Random(3))

    @in_virtual_time
    async def run() -> None:
        nonlocal took
        await traffic.run(10)
        took = 5 * SERVICE_S  # 50 calls are in flight then, and none of them queues
        await traffic.run(10)
        before = traffic.refused
        await traffic.run(10)
        assert traffic.refused == before
        assert not traffic.late

    run()


def test_the_limit_follows_a_server_that_loses_and_regains_workers() -> None:
    server = Server(16, lambda: SERVICE_S)
    admission = Admission(ConcurrencyLimit(), most_waiting=64)
    traffic = Traffic(admission, server, 1600.0, DEADLINE_S, Random(3))

    @in_virtual_time
    async def run() -> None:
        means = []
        for workers in (16, 4, 16):
            server.workers = workers
            del server.busy_until[workers:]
            await traffic.run(10)
            half = [limit for at, limit in traffic.limits if at > traffic.limits[-1][0] - 5]
            means.append(sum(half) / len(half))
        assert 10 <= means[0] <= 48
        assert 2 <= means[1] <= 12
        assert 10 <= means[2] <= 48

    run()
