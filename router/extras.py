"""What may be sent on top of the traffic: hedges, retries, explorations; taken out of here before it is sent."""

from __future__ import annotations

from dataclasses import dataclass

from router.deployment import Shares
from router.share import TrafficShare

EXTRAS_AT_ONCE = 10
"""How many of a kind may follow one another after a quiet time."""


@dataclass(frozen=True, slots=True)
class Extras:
    """Shares of the traffic.

    Args:
        hedges: Second attempts that start before the first has ended.
        retries: Second attempts on a backend that could not be reached.
        explorations: Requests that take a plan's other order.
    """

    hedges: TrafficShare
    retries: TrafficShare
    explorations: TrafficShare

    def deposit(self) -> None:
        """A request came."""
        self.hedges.deposit()
        self.retries.deposit()
        self.explorations.deposit()


def new_extras(shares: Shares) -> Extras:
    """Extras of these shares, of which none was used yet."""
    return Extras(
        *(TrafficShare(share, EXTRAS_AT_ONCE) for share in (shares.hedges, shares.retries, shares.explorations))
    )
