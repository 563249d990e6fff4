"""What is sent on top of the traffic stays a share of it, in any order of events and over any stretch of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.share import TrafficShare


class ShareMachine(RuleBasedStateMachine):
    """The model: the largest sum of `extras - share * requests` over the stretches that end now."""

    @initialize(share=st.floats(0, 1), burst=st.floats(1, 50))
    def starts(self, share: float, burst: float) -> None:
        self.limit, self.burst = share, burst
        self.share = TrafficShare(share, burst)
        self.excess = 0.0

    @rule(requests=st.integers(1, 40))
    def requests_come(self, requests: int) -> None:
        self.share.deposit(requests)
        for _ in range(requests):
            self.excess = max(0.0, self.excess - self.limit)

    @rule(wanted=st.integers(1, 60))
    def extras_are_wanted(self, wanted: int) -> None:
        self.excess += sum(self.share.withdraw() for _ in range(wanted))

    @invariant()
    def extras_stay_within_share_and_burst(self) -> None:
        assert self.excess <= self.burst + 1e-6


TestShare = ShareMachine.TestCase


@given(st.floats(1, 50))
def test_a_full_burst_is_there_at_the_start_and_no_more(burst: float) -> None:
    share = TrafficShare(0.01, burst)
    assert sum(share.withdraw() for _ in range(100)) == math.floor(burst)


def test_a_share_of_nothing_grants_nothing() -> None:
    share = TrafficShare(0.0, 10)
    share.deposit(1)
    assert not share.withdraw()


@pytest.mark.parametrize("share", [0.01, 0.1, 1 / 3])
def test_the_whole_share_can_be_used_and_nothing_drifts(share: float) -> None:
    requests = 300_000
    traffic = TrafficShare(share, 1)
    granted = 0
    for _ in range(requests):
        traffic.deposit(1)
        granted += traffic.withdraw()
    assert share * requests - 0.1 <= granted <= share * requests + 1


@pytest.mark.parametrize(("share", "burst"), [(-0.1, 1), (1.1, 1), (math.nan, 1), (0.1, 0.9), (0.1, math.inf)])
def test_what_makes_no_sense_is_refused(share: float, burst: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        TrafficShare(share, burst)
