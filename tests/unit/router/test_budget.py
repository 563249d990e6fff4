"""Budgets: exact sums, and clocks that jump in both directions."""

from __future__ import annotations

import math
from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.budget import MOST_NANO, NANO, PERIODS_TO_SETTLE, Budget, Spending, Tally, day_key, month_key

TODAY = date(2026, 11, 24)
FAR = date(2038, 1, 19)
UNSET = date(1970, 1, 1)

BUDGET = Budget(usd_per_day=1.0, usd_per_month=10.0)

amounts = st.integers(0, 5 * NANO).map(lambda nano: nano / NANO)
dates = st.dates(date(2026, 1, 1), date(2029, 12, 31))


class SpendingMachine(RuleBasedStateMachine):
    """A clock that ticks forward, and is wrong by a leap in either direction now and then.

    It is right at first: nothing tells a first date that is wrong from one that is right. The model: what was spent
    since the true day and month began, and since anything began.
    """

    def __init__(self) -> None:
        super().__init__()
        self.today = TODAY
        self.spending = Spending()
        self.spending.charge(0.0, self.today)
        self.day = self.month = self.ever = 0

    def charge(self, nano: int, today: date) -> None:
        self.spending.charge(nano / NANO, today)
        self.day += nano
        self.month += nano
        self.ever += nano

    @rule(nano=st.integers(0, NANO))
    def spends(self, nano: int) -> None:
        self.charge(nano, self.today)

    @rule(nano=st.integers(0, NANO))
    def a_day_passes(self, nano: int) -> None:
        self.today += timedelta(days=1)
        self.day = 0
        if self.today.day == 1:
            self.month = 0
        self.charge(nano, self.today)

    @rule(clock=st.dates(date(1970, 1, 1), date(2026, 11, 22)), nano=st.integers(0, NANO))
    def the_clock_is_wrong_backward_for_a_while(self, clock: date, nano: int) -> None:
        day, month = self.spending.day.spent, self.spending.month.spent
        self.charge(nano, clock)
        assert self.spending.day.spent >= day + nano, "a day was started anew"
        assert self.spending.month.spent >= month + nano, "a month was started anew"

    @rule(days=st.integers(400, 5000), nano=st.integers(0, NANO))
    def the_clock_is_wrong_forward_for_a_while(self, days: int, nano: int) -> None:
        self.charge(nano, self.today + timedelta(days=days))
        self.charge(0, self.today)

    @invariant()
    def nothing_that_the_true_period_spent_is_lost(self) -> None:
        today = self.today
        assert self.day <= self.spending.day.at(day_key(today)).spent <= self.ever
        assert self.month <= self.spending.month.at(month_key(today)).spent <= self.ever

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        for tally in (self.spending.day, self.spending.month):
            assert max(tally.nano, tally.far_nano) <= self.ever


TestSpending = SpendingMachine.TestCase


@given(st.lists(st.integers(0, 5 * NANO), max_size=200))
def test_sums_are_exact(nanos: list[int]) -> None:
    spending = Spending()
    for nano in nanos:
        spending.charge(nano / NANO, TODAY)
    assert spending.day.spent == spending.month.spent == sum(nanos)


def test_a_million_charges_of_a_tenth_of_a_cent_do_not_drift() -> None:
    spending = Spending()
    for _ in range(100_000):
        spending.charge(0.001, TODAY)
    assert Fraction(spending.month.spent, NANO) == 100


@given(st.lists(st.tuples(dates, amounts), max_size=30))
def test_with_an_honest_clock_each_period_counts_what_was_spent_in_it(charges: list[tuple[date, float]]) -> None:
    spending = Spending()
    charges.sort(key=lambda charge: charge[0])
    for day, usd in charges:
        spending.charge(usd, day)
    if charges:
        last = charges[-1][0]
        assert spending.day.at(day_key(last)).spent == sum(round(usd * NANO) for day, usd in charges if day == last)
        in_month = [usd for day, usd in charges if month_key(day) == month_key(last)]
        assert spending.month.at(month_key(last)).spent == sum(round(usd * NANO) for usd in in_month)


def test_the_smaller_of_what_is_left_counts() -> None:
    spending = Spending()
    spending.charge(0.25, TODAY)
    assert spending.left(BUDGET, TODAY) == 0.75
    for days in range(1, 13):
        spending.charge(0.8, date(2026, 12, days))
    assert spending.left(BUDGET, date(2026, 12, 12)) == pytest.approx(0.2)
    assert spending.left(BUDGET, date(2026, 12, 13)) == pytest.approx(0.4), "0.4 of the month's 10 are left"
    assert spending.left(Budget(), TODAY) is None
    assert not spending.spent(Budget(), TODAY)


def test_what_is_overspent_leaves_nothing_and_not_less() -> None:
    spending = Spending()
    spending.charge(3.0, TODAY)
    assert spending.left(BUDGET, TODAY) == 0
    assert spending.spent(BUDGET, TODAY)
    assert not spending.spent(BUDGET, TODAY + timedelta(days=1))


def test_reading_changes_nothing() -> None:
    spending = Spending()
    spending.charge(0.5, TODAY)
    before = (spending.day, spending.month)
    for day in (FAR, UNSET, TODAY + timedelta(days=1)):
        spending.left(BUDGET, day), spending.spent(BUDGET, day), spending.today_usd(day), spending.this_month_usd(day)
    assert (spending.day, spending.month) == before


def test_a_clock_without_a_battery_starts_no_period() -> None:
    spending = Spending()
    spending.charge(0.5, TODAY)
    spending.charge(0.25, UNSET)
    assert spending.today_usd(UNSET) == spending.today_usd(TODAY) == 0.75
    assert spending.this_month_usd(TODAY) == 0.75


def test_a_step_back_over_midnight_starts_no_period() -> None:
    spending = Spending()
    first = date(2026, 12, 1)
    spending.charge(0.5, first - timedelta(days=1))
    spending.charge(1.0, first)
    spending.charge(0.125, first - timedelta(days=1))
    assert spending.today_usd(first) == spending.this_month_usd(first) == 1.125


def test_a_short_leap_forward_loses_nothing() -> None:
    spending = Spending()
    spending.charge(0.5, TODAY)
    spending.charge(0.25, FAR)
    assert spending.today_usd(FAR) == 0.25
    assert spending.today_usd(TODAY) == spending.this_month_usd(TODAY) == 0.75, "what was spent meanwhile counts too"
    spending.charge(0.125, TODAY)
    assert spending.today_usd(TODAY) == 0.875
    assert spending.today_usd(FAR) == 0.375, "the far day is not started anew by going back and forth"


def test_after_a_leap_days_and_months_go_on() -> None:
    spending = Spending()
    spending.charge(0.5, TODAY)
    spending.charge(0.25, FAR)
    spending.charge(0.125, TODAY)
    tomorrow, next_month = TODAY + timedelta(days=1), date(2026, 12, 1)
    assert spending.today_usd(tomorrow) == 0
    spending.charge(0.0625, tomorrow)
    assert spending.this_month_usd(tomorrow) == 0.9375
    assert spending.this_month_usd(next_month) == 0


def test_a_leap_is_believed_when_periods_follow_it() -> None:
    tally = Tally().charged(5, day_key(TODAY))
    day = FAR
    for _ in range(PERIODS_TO_SETTLE + 1):
        tally = tally.charged(1, day_key(day))
        day += timedelta(days=1)
    assert tally == Tally(day_key(day - timedelta(days=1)), 1)


def test_a_device_that_was_off_for_months_starts_a_new_month() -> None:
    spending = Spending()
    spending.charge(9.0, TODAY)
    assert spending.left(BUDGET, date(2027, 3, 1)) == 1.0


def test_a_far_clock_over_the_end_of_the_calendar_is_no_error() -> None:
    spending = Spending()
    spending.charge(0.5, date.max)
    spending.charge(0.5, date.max)
    assert spending.today_usd(date.max) == 1.0


def test_totals_stop_where_a_record_is_full() -> None:
    assert Tally().charged(MOST_NANO, 202611).charged(5, 202611).spent == MOST_NANO


@pytest.mark.parametrize("usd", [-1e-9, math.inf, math.nan])
def test_amounts_that_make_no_sense_are_refused(usd: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Spending().charge(usd, TODAY)
    with pytest.raises(ValueError, match="at least 0"):
        Budget(usd_per_day=usd)
