"""Extras are paid out of the requests that came, whichever kind is asked for first."""

from __future__ import annotations

from router.deployment import Shares
from router.extras import EXTRAS_AT_ONCE, Extras


def test_every_kind_has_a_burst_of_its_own_at_the_start() -> None:
    extras = Extras(Shares(hedges=0.1, retries=0.1, explorations=0.1))
    for may in (extras.may_hedge, extras.may_retry, extras.may_explore):
        assert sum(may() for _ in range(100)) == EXTRAS_AT_ONCE


def test_requests_are_saved_up_for_every_kind_and_only_once() -> None:
    extras = Extras(Shares(hedges=0.1, retries=0.1, explorations=0.1))
    kinds = (extras.may_hedge, extras.may_retry, extras.may_explore)
    for may in kinds:
        assert sum(may() for _ in range(100)) == EXTRAS_AT_ONCE
    extras.requests += 50
    for may in kinds:
        assert sum(may() for _ in range(100)) == 5
