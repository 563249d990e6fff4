"""A backend's budget and what was spent of it: the one place that both are looked at together, with today's date."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from router.budget import Budget
from router.ledger import Account, Ledger


class Purse:
    """What one backend may still cost.

    Args:
        budget: What the policy file allows.
        account: What was spent, kept safe on disk.
        today: Gives the date, UTC.
    """

    __slots__ = ("_today", "account", "budget")

    def __init__(self, budget: Budget, account: Account, today: Callable[[], date]) -> None:
        self.budget = budget
        self.account = account
        self._today = today

    @property
    def is_spent(self) -> bool:
        """Whether the backend must not be asked."""
        return self.budget.when_spent == "local-only" and self.account.spending.spent(self.budget, self._today())

    @property
    def why_spent(self) -> str:
        """That nothing is left, in words."""
        day, month = self.budget.usd_per_day, self.budget.usd_per_month
        limits = [f"${usd:g} a {period}" for period, usd in (("day", day), ("month", month)) if usd is not None]
        return f"its budget of {' and '.join(limits)} is spent"

    @property
    def left_usd(self) -> float | None:
        """Dollars left in the tighter of its periods; below zero where more was spent."""
        return self.account.spending.left(self.budget, self._today())

    @property
    def spent_day_usd(self) -> float:
        """Dollars spent today."""
        return self.account.spending.today_usd(self._today())

    @property
    def spent_month_usd(self) -> float:
        """Dollars spent this month."""
        return self.account.spending.this_month_usd(self._today())

    def charge(self, usd: float) -> None:
        """Adds what a call costs."""
        self.account.charge(usd, self._today())

    def refund(self, usd: float) -> None:
        """Takes back what a call was charged that never reached the backend."""
        self.account.refund(usd, self._today())


class Purses:
    """Makes purses; what was spent outlives the policy file's changes and the process.

    Args:
        ledger: Keeps what was spent.
        today: Gives the date, UTC.
    """

    def __init__(self, ledger: Ledger, today: Callable[[], date]) -> None:
        self.ledger = ledger
        self._today = today

    def of(self, backend: str, budget: Budget) -> Purse:
        """The purse of the backend of that name."""
        return Purse(budget, self.ledger.open(backend), self._today)
