"""What may be spent on a backend, and what was. Pure: the date comes in as an argument; sums are whole nano-dollars.

Invariants:
- The total of the period in force never falls, but by a refund: a period starts from nothing only where the clock
  moves *forward* into it. A device without a battery clock may wake up in 1970: the latest period stays in force
  until the clock passes it.
- Sums are exact. A charge is rounded to the nearest nano-dollar, once.

A clock that was wrong *forward* (2038 for a minute) is harder: if 2038 stayed in force, the limit of one month would
have to last for twelve years; if it were just dropped, the month's spending would be lost with it. So where the clock
leaps over at least one whole period, the period that it came from is kept beside the new one, and what is spent counts
in both for as long as the leap may turn out to be an error: until three periods have followed one another without a
gap. Where the clock comes back to or beyond the period that was kept, that one is in force again, with all that was
spent since it began; the far one stays on record in case the clock returns to it.

What this costs, and why it is the lesser evil: a device that was switched off over whole periods, and whose clock then
steps back into that gap, may count what it spent after the gap in the gap as well: it spends too little for the rest
of that day or month. A clock that is wrong forward grants a fresh limit while it is wrong, once. One that is wrong by
a single period, for more than three periods on end, or at the very first charge, is believed: that period stays in
force until the true time has reached it, and too little is spent until then (the operator may remove the record). One
that is wrong forward in two ways, the second nearer than the first, before it is right again may lose the period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal, NamedTuple

NANO: Final = 1_000_000_000

MOST_NANO: Final = (1 << 63) - 1
"""Where totals stop, at nine billion dollars: what fits into the eight bytes of a record."""

PERIODS_TO_SETTLE: Final = 3
"""How many periods have to follow a leap of the clock, one after the other, before it is believed."""

_FIRST_DAY_KEY: Final = 1_000_000
"""The least of the keys that name a day (`20261124`); those below name a month (`202611`)."""


def day_key(day: date) -> int:
    """A day as a number: 20261124."""
    return day.year * 10_000 + day.month * 100 + day.day


def month_key(day: date) -> int:
    """A day's month as a number: 202611."""
    return day.year * 100 + day.month


def _next(key: int) -> int:
    """The key of the period after this one."""
    if key < _FIRST_DAY_KEY:
        return key + 1 if key % 100 < 12 else key + 89
    day = date(key // 10_000, key // 100 % 100, key % 100)
    return day_key(day + timedelta(days=1)) if day < date.max else key + 1


class Tally(NamedTuple):
    """What was spent in one day or month, and in the one that the clock leapt to, if it did.

    Args:
        key: The period, 0 before the first.
        nano: Nano-dollars spent since it began.
        far_key: The period that the clock leapt to; 0 if there is none.
        far_nano: Nano-dollars spent in that one.
        far_in_force: Whether that is the one in force.
        followed: How many periods followed the leap, one after the other.
    """

    key: int = 0
    nano: int = 0
    far_key: int = 0
    far_nano: int = 0
    far_in_force: bool = False
    followed: int = 0

    @property
    def in_force(self) -> int:
        """The key of the period in force."""
        return self.far_key if self.far_in_force else self.key

    @property
    def spent(self) -> int:
        """Nano-dollars spent in the period in force."""
        return self.far_nano if self.far_in_force else self.nano

    def at(self, key: int) -> Tally:
        """The tally when the clock says that it is this period."""
        if key == self.in_force:
            return self
        if self.far_in_force:
            return self._at_from_far(key)
        if key < self.key:
            return self
        if self.far_key and key == self.far_key:
            return self._replace(far_in_force=True)
        if not self.key or key == _next(self.key):
            return self._replace(key=key, nano=0)
        return Tally(self.key, self.nano, key, 0, True)

    def _at_from_far(self, key: int) -> Tally:
        if key > self.far_key:
            followed = self.followed + 1 if key == _next(self.far_key) else 0
            if followed >= PERIODS_TO_SETTLE:
                return Tally(key)
            return self._replace(far_key=key, far_nano=0, followed=followed)
        if key < self.key or _next(key) >= self.far_key:
            return self
        return self._replace(key=key, far_in_force=False)

    def charged(self, nano: int, key: int) -> Tally:
        """The tally after so many nano-dollars more, spent when the clock says that it is this period.

        Below zero takes back; what was spent before the period began is not taken back out of it.
        """
        now = self.at(key)
        total = max(0, min(MOST_NANO, now.nano + nano))
        far = max(0, min(MOST_NANO, now.far_nano + nano)) if now.far_key else 0
        return Tally(now.key, total, now.far_key, far, now.far_in_force, now.followed)


class Spending:
    """What was spent on one backend in the current day and month, both in UTC.

    Args:
        day: The tally of days.
        month: The tally of months.
    """

    __slots__ = ("day", "month")

    def __init__(self, day: Tally = Tally(), month: Tally = Tally()) -> None:  # noqa: B008 (immutable)
        self.day = day
        self.month = month

    def charge(self, usd: float, today: date) -> None:
        """Adds what a call costs; it is charged when it is sent, whatever becomes of it.

        Args:
            usd: Dollars, at least 0.
            today: The date in UTC.

        Raises:
            ValueError: The amount is negative, infinite or not a number.
        """
        self._add(_nano_of("a charge", usd), today)

    def refund(self, usd: float, today: date) -> None:
        """Takes back what a call was charged that turned out never to have reached the backend.

        Args:
            usd: Dollars, at least 0.
            today: The date in UTC.

        Raises:
            ValueError: The amount is negative, infinite or not a number.
        """
        self._add(-_nano_of("a refund", usd), today)

    def _add(self, nano: int, today: date) -> None:
        self.day = self.day.charged(nano, day_key(today))
        self.month = self.month.charged(nano, month_key(today))

    def today_usd(self, today: date) -> float:
        """Dollars spent in the day in force."""
        return self.day.at(day_key(today)).spent / NANO

    def this_month_usd(self, today: date) -> float:
        """Dollars spent in the month in force."""
        return self.month.at(month_key(today)).spent / NANO

    def left(self, budget: Budget, today: date) -> float | None:
        """Dollars that may still be spent, the smaller of day and month, never negative; None without a limit."""
        left = []
        if budget.usd_per_day is not None:
            left.append(_nano(budget.usd_per_day) - self.day.at(day_key(today)).spent)
        if budget.usd_per_month is not None:
            left.append(_nano(budget.usd_per_month) - self.month.at(month_key(today)).spent)
        return max(0, min(left)) / NANO if left else None

    def spent(self, budget: Budget, today: date) -> bool:
        """Whether nothing is left."""
        return self.left(budget, today) == 0


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on one backend.

    Args:
        usd_per_day: Dollars in one day (UTC); None sets no limit.
        usd_per_month: Dollars in one calendar month (UTC); None sets no limit.
        when_spent: What happens when one of them is spent: only backends on the premises are asked, or a warning.

    Raises:
        ValueError: A limit is negative, infinite or not a number.
    """

    usd_per_day: float | None = None
    usd_per_month: float | None = None
    when_spent: Literal["local-only", "warn"] = "local-only"

    def __post_init__(self) -> None:
        for name in ("usd_per_day", "usd_per_month"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be an amount of at least 0, not {value}")


def _nano_of(what: str, usd: float) -> int:
    if not 0 <= usd < math.inf:
        raise ValueError(f"{what} is an amount of at least 0, not {usd}")
    return _nano(usd)


def _nano(usd: float) -> int:
    return round(usd * NANO)
