"""A bounded share of the traffic, for what is sent on top of it: hedges, retries, explorations. Pure.

Like the retry budget of Finagle (com.twitter.finagle.service.RetryBudget), but without a clock: each request saves up
a share of an extra, each extra costs a whole one, and no more than a burst is ever saved up.

Invariants:
- Over any run of requests and extras, from any moment on, extras <= share * requests + burst: an outage in which every
  request would like a second try adds `share` to the load, not a second load.
- A share of 0 grants nothing, not even at the start.
- The savings are whole numbers inside, so that nothing drifts however long it runs. The share is rounded up, by less
  than one extra in 2^40 requests: rounded down, a tenth would be one extra in eleven requests where the burst is 1.
"""

from __future__ import annotations

import math

UNIT = 1 << 40
"""What one extra costs, in the whole numbers that are counted."""


class TrafficShare:
    """What was saved up so far. It starts with a full burst.

    Args:
        share: Extras per request in the long run, from 0 (none) to 1.
        burst: How many extras may follow one another after a quiet time, at least 1.

    Raises:
        ValueError: One of them is out of its range.
    """

    __slots__ = ("_deposit", "_most", "_saved")

    def __init__(self, share: float, burst: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must be from 0 to 1, not {share}")
        if not 1 <= burst < math.inf:
            raise ValueError(f"burst must be at least 1, or nothing could ever be withdrawn; it is {burst}")
        self._deposit = math.ceil(share * UNIT)
        self._most = math.floor(burst * UNIT) if self._deposit else 0
        self._saved = self._most

    def deposit(self, requests: int) -> None:
        """So many requests came."""
        self._saved = min(self._most, self._saved + requests * self._deposit)

    def withdraw(self) -> bool:
        """Takes one extra out of what was saved up. Returns whether there was one."""
        if self._saved < UNIT:
            return False
        self._saved -= UNIT
        return True
