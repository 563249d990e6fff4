"""What may be sent on top of the traffic: hedges, retries, explorations; taken out of here before it is sent."""

from __future__ import annotations

from router.deployment import Shares
from router.share import TrafficShare

EXTRAS_AT_ONCE = 10
"""How many of a kind may follow one another after a quiet time."""


class Extras:
    """Shares of the traffic, of which none was used yet.

    Args:
        shares: How large they may be.

    Attributes:
        requests: Requests that came since one of them was last asked for. Whoever takes a request in adds one: most
            requests need no extra, and pay for that addition alone.
    """

    __slots__ = ("_explorations", "_hedges", "_retries", "requests")

    def __init__(self, shares: Shares) -> None:
        self._hedges = TrafficShare(shares.hedges, EXTRAS_AT_ONCE)
        self._retries = TrafficShare(shares.retries, EXTRAS_AT_ONCE)
        self._explorations = TrafficShare(shares.explorations, EXTRAS_AT_ONCE)
        self.requests = 0

    def may_hedge(self) -> bool:
        """Whether a second attempt may start before the first has ended; takes it out of its share."""
        return self._withdraw(self._hedges)

    def may_retry(self) -> bool:
        """The same for a second attempt on a backend that could not be reached."""
        return self._withdraw(self._retries)

    def may_explore(self) -> bool:
        """The same for a request that takes a plan's other order."""
        return self._withdraw(self._explorations)

    def _withdraw(self, share: TrafficShare) -> bool:
        for each in (self._hedges, self._retries, self._explorations):
            each.deposit(self.requests)
        self.requests = 0
        return share.withdraw()
