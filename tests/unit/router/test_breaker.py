"""The breaker's invariants, held against every order of events that hypothesis can think of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.breaker import (
    ATTEMPTS_TO_OPEN,
    CHECK_INTERVAL_S,
    CHECKS_TO_OPEN,
    FIRST_WAIT_S,
    LONGEST_RELAPSE_WAIT_S,
    LONGEST_WAIT_S,
    RATE_LEAST,
    RATE_SPAN_S,
    RATE_TO_OPEN,
    RATE_WINDOW,
    RELAPSE_S,
    RUN_S,
    SPREAD,
    Breaker,
    BreakerState,
)
from router.errors import Outcome

LASTING_S = RUN_S + 0.001

randoms = st.floats(0, 1, exclude_max=True)


def closed_breaker() -> Breaker:
    breaker = Breaker(0.0)
    assert breaker.begin_probe()
    breaker.probe_succeeded(0.0)
    return breaker


def fails(breaker: Breaker, at: float, reason: str = "", times: int = ATTEMPTS_TO_OPEN) -> None:
    """So many attempts in a row are dropped; three of them last long enough to be no hiccup."""
    for number in range(times):
        breaker.attempt_ended(Outcome.DROPPED, at + LASTING_S * number / (ATTEMPTS_TO_OPEN - 1), reason)


def open_breaker() -> Breaker:
    breaker = closed_breaker()
    fails(breaker, 10.0, "failed")
    return breaker


class BreakerMachine(RuleBasedStateMachine):
    """One probe at a time, as the engine makes them; attempts may end at any moment, also after it opened.

    The model: `latest` are the attempts of which the share is taken, `failures` counts those that were dropped since
    the last success, `failed_checks` the probes that failed since the last good one, all while closed; `failed_probes`
    counts those since it opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.breaker = Breaker(self.now)
        self.closed = False
        self.failures = 0
        self.failed_checks = 0
        self.failed_probes = 0
        self.failing_since = self.now
        self.latest: list[tuple[float, bool]] = []
        self.probe: bool | None = None

    def remember(self, dropped: bool) -> None:
        self.latest = [*self.latest, (self.now, dropped)][-RATE_WINDOW:]
        self.latest = [(at, was) for at, was in self.latest if at >= self.now - RATE_SPAN_S]

    def too_many_dropped(self) -> bool:
        return len(self.latest) >= RATE_LEAST and sum(was for _, was in self.latest) >= RATE_TO_OPEN * len(self.latest)

    def open_if(self, enough: bool) -> None:
        if enough:
            self.closed = False
            self.failed_probes = 0

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def attempt_succeeds(self) -> None:
        self.breaker.attempt_ended(Outcome.SUCCESS, self.now)
        self.failures = 0
        if self.closed:
            self.remember(False)

    @rule()
    def attempt_is_dropped(self) -> None:
        self.breaker.attempt_ended(Outcome.DROPPED, self.now, "dropped")
        if self.closed:
            self.failing_since = self.failing_since if self.failures else self.now
            self.failures += 1
            self.remember(True)
            in_a_row = self.failures >= ATTEMPTS_TO_OPEN and self.now - self.failing_since >= RUN_S
            self.open_if(in_a_row or self.too_many_dropped())

    @rule()
    def ignored_attempt_changes_nothing(self) -> None:
        before = (self.breaker.state, self.breaker.reason, self.breaker.next_probe_at)
        self.breaker.attempt_ended(Outcome.IGNORE, self.now, "hung up")
        assert (self.breaker.state, self.breaker.reason, self.breaker.next_probe_at) == before

    @precondition(lambda self: self.probe is None)
    @rule()
    def probe_begins(self) -> None:
        self.probe = self.breaker.begin_probe()
        assert self.probe is not self.closed, "what is not closed is tested with a synthetic inference only"

    @precondition(lambda self: self.probe is not None)
    @rule()
    def probe_succeeds(self) -> None:
        self.breaker.probe_succeeded(self.now)
        if self.probe:
            self.closed = True
            self.failures = 0
            self.latest = []
        if self.closed:
            self.failed_checks = 0
        self.probe = None

    @precondition(lambda self: self.probe is not None)
    @rule(random=randoms)
    def probe_fails(self, random: float) -> None:
        self.breaker.probe_failed(self.now, random, "no answer")
        if self.closed:
            self.failed_checks += 1
            self.open_if(self.failed_checks >= CHECKS_TO_OPEN)
        else:
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**self.failed_probes)
            assert wait * (1 - SPREAD) <= self.breaker.next_probe_at - self.now + 1e-9
            assert self.breaker.next_probe_at - self.now <= wait + 1e-9
            self.failed_probes += 1
        self.probe = None

    @invariant()
    def closed_and_only_closed_admits(self) -> None:
        assert self.breaker.admits == self.closed == (self.breaker.state is BreakerState.CLOSED)

    @invariant()
    def half_open_only_while_a_synthetic_probe_is_on_its_way(self) -> None:
        if self.breaker.state is BreakerState.HALF_OPEN:
            assert self.probe is True

    @invariant()
    def the_next_probe_is_never_further_away_than_the_longest_wait(self) -> None:
        assert self.breaker.next_probe_at <= self.now + max(LONGEST_WAIT_S, LONGEST_RELAPSE_WAIT_S, CHECK_INTERVAL_S)

    @invariant()
    def it_says_why_it_does_not_admit(self) -> None:
        assert bool(self.breaker.reason) == (not self.closed)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_nothing_is_trusted_before_it_was_tried() -> None:
    breaker = Breaker(7.0)
    assert not breaker.admits
    assert breaker.next_probe_at == 7.0
    breaker.attempt_ended(Outcome.SUCCESS, 8.0)
    assert not breaker.admits


@pytest.mark.parametrize("failures", range(ATTEMPTS_TO_OPEN + 1))
def test_it_opens_at_the_third_failure_and_not_before(failures: int) -> None:
    breaker = closed_breaker()
    fails(breaker, 10.0, "broken", failures)
    assert breaker.admits == (failures < ATTEMPTS_TO_OPEN)
    assert breaker.reason == ("broken" if failures == ATTEMPTS_TO_OPEN else "")


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker = closed_breaker()
    for _ in range((RATE_LEAST - 1) // 3):
        breaker.attempt_ended(Outcome.DROPPED, 1.0)
        breaker.attempt_ended(Outcome.DROPPED, 1.0)
        breaker.attempt_ended(Outcome.SUCCESS, 1.0)
    assert breaker.admits


def test_it_opens_when_half_of_the_latest_attempts_fail_though_no_three_in_a_row_do() -> None:
    breaker = closed_breaker()
    for number in range(RATE_LEAST):
        assert breaker.admits
        breaker.attempt_ended(Outcome.DROPPED if number % 2 else Outcome.SUCCESS, 1.0, "flaky")
    assert not breaker.admits
    assert breaker.reason == "flaky"


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = closed_breaker()
    for number in range(10 * RATE_LEAST):
        breaker.attempt_ended(Outcome.DROPPED if number % 2 else Outcome.SUCCESS, number * RATE_SPAN_S)
    assert breaker.admits


@given(st.lists(st.booleans(), max_size=400))
def test_a_backend_that_fails_less_than_half_of_the_time_and_never_thrice_stays_closed(order: list[bool]) -> None:
    """Two successes before each failure, in any order of the rest."""
    breaker = closed_breaker()
    for dropped in order:
        breaker.attempt_ended(Outcome.SUCCESS, 1.0)
        breaker.attempt_ended(Outcome.SUCCESS, 1.0)
        breaker.attempt_ended(Outcome.DROPPED if dropped else Outcome.SUCCESS, 1.0)
    assert breaker.admits


def test_a_readiness_probe_does_not_excuse_failed_attempts() -> None:
    breaker = closed_breaker()
    for _ in range(ATTEMPTS_TO_OPEN):
        assert not breaker.begin_probe()
        breaker.probe_succeeded(1.0)
    fails(breaker, 1.0)
    assert not breaker.admits


def test_a_readiness_probe_that_began_before_it_opened_does_not_close_it() -> None:
    breaker = closed_breaker()
    assert not breaker.begin_probe()
    fails(breaker, 1.0, "wrong answers")
    breaker.probe_succeeded(1.1)
    assert not breaker.admits


def test_the_wait_doubles_up_to_the_longest() -> None:
    breaker = open_breaker()
    waits = []
    for _ in range(6):
        breaker.begin_probe()
        breaker.probe_failed(50.0, 0.0, "still down")
        waits.append(breaker.next_probe_at - 50.0)
    assert waits == [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]


def test_the_wait_starts_small_again_after_it_was_closed() -> None:
    breaker = open_breaker()
    for _ in range(40):
        breaker.begin_probe()
        breaker.probe_failed(1.0, 0.0, "still down")
    breaker.begin_probe()
    breaker.probe_succeeded(2.0)
    fails(breaker, 2.0 + RELAPSE_S)
    assert breaker.next_probe_at == 2.0 + RELAPSE_S + LASTING_S, "at once"
    breaker.begin_probe()
    breaker.probe_failed(9.0, 0.0, "still down")
    assert breaker.next_probe_at == 9.0 + FIRST_WAIT_S


def test_failures_that_come_all_at_once_are_a_hiccup() -> None:
    breaker = closed_breaker()
    for _ in range(RATE_LEAST - 1):
        breaker.attempt_ended(Outcome.DROPPED, 1.0)
    assert breaker.admits
    breaker.attempt_ended(Outcome.DROPPED, 1.0 + LASTING_S)
    assert not breaker.admits


def test_one_that_opens_again_and_again_waits_longer_and_longer() -> None:
    breaker, now, waits = closed_breaker(), 10.0, []
    for _ in range(6):
        fails(breaker, now)
        waits.append(round(breaker.next_probe_at - now - LASTING_S, 6))
        now = breaker.next_probe_at
        breaker.begin_probe()
        breaker.probe_succeeded(now)
    assert waits == [0.0, 0.5, 1.0, *[LONGEST_RELAPSE_WAIT_S] * 3]


def test_failed_readiness_probes_open_it_too() -> None:
    breaker = closed_breaker()
    for _ in range(CHECKS_TO_OPEN):
        assert breaker.admits
        breaker.begin_probe()
        breaker.probe_failed(1.0, 0.0, "not ready")
    assert not breaker.admits
    assert breaker.reason == "not ready"


def test_failed_readiness_probes_far_apart_do_not_add_up() -> None:
    breaker = closed_breaker()
    for _ in range(10):
        breaker.begin_probe()
        breaker.probe_failed(1.0, 0.0, "hiccup")
        breaker.begin_probe()
        breaker.probe_succeeded(2.0)
    assert breaker.admits


@pytest.mark.parametrize("random", [0.0, 0.5, 0.99])
def test_the_wait_for_the_next_probe_is_spread(random: float) -> None:
    breaker = Breaker(0.0)
    breaker.begin_probe()
    breaker.probe_failed(10.0, random, "no answer")
    assert breaker.next_probe_at - 10.0 == pytest.approx(FIRST_WAIT_S * (1 - SPREAD * random))
