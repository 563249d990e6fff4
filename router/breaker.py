"""The circuit breaker of one model on one backend. Pure: time and the random number come in as arguments.

Invariants:
- CLOSED admits every request; OPEN and HALF_OPEN admit none: only synthetic probes test a backend that failed.
- It opens after `ATTEMPTS_TO_OPEN` dropped attempts with no successful attempt between them, over at least `RUN_S`;
  when `RATE_TO_OPEN` of the latest attempts (at most `RATE_WINDOW`, at least `RATE_LEAST`, of the last `RATE_SPAN_S`)
  were dropped; and after `CHECKS_TO_OPEN` failed probes with no successful probe between them. None excuses another: a
  server can be ready and still answer wrongly.
- An attempt that missed its cut-off was dropped: slow counts as failed. One that its caller gave too little time is
  ignored; who calls this decides which it was.
- `Outcome.IGNORE` changes nothing.
- While it is open, the wait before the next probe doubles with each failed probe up to `LONGEST_WAIT_S`, and is
  spread by up to a fifth so that a fleet does not probe in step.
- One that opens again within `RELAPSE_S` of closing waits before the first probe too, twice as long with each relapse,
  up to `LONGEST_RELAPSE_WAIT_S`.
- It closes on one successful synthetic probe. A readiness probe that was under way when it opened does not close it.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

from router.errors import Outcome

ATTEMPTS_TO_OPEN = 3
RUN_S = 0.1
"""How long a run of dropped attempts must have lasted: less is a hiccup of the line."""

CHECKS_TO_OPEN = 2
RATE_TO_OPEN = 0.5
RATE_LEAST = 20
RATE_WINDOW = 100
RATE_SPAN_S = 10.0
CHECK_INTERVAL_S = 0.2
"""Seconds between a good probe and the next. Two that go unanswered in turn are noticed within a second."""

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 1.0
"""A backend that was away for hours is back within three seconds all the same: this wait, and the probe."""

RELAPSE_S = 5.0
"""One that opens again so soon after it closed is not well: made-up inferences pass, and users' do not."""

LONGEST_RELAPSE_WAIT_S = 2.0

SPREAD = 0.2


class BreakerState(Enum):
    """Closed: traffic flows. Open: none flows. Half-open: none flows, a synthetic probe is on its way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """State of one breaker. Starts OPEN with a probe due at once: nothing is trusted before it was tried.

    Attributes:
        state: The state.
        admits: Whether a user's request may be sent: it is CLOSED.
        reason: Why it is not, in words; empty if it is.
    """

    __slots__ = (
        "_closed_at",
        "_dropped",
        "_failed_attempts",
        "_failed_checks",
        "_failed_probes",
        "_failing_since",
        "_latest",
        "_next_probe_at",
        "_relapses",
        "admits",
        "reason",
        "state",
    )

    def __init__(self, now: float) -> None:
        self._enter(BreakerState.OPEN)
        self.reason = "not probed yet"
        self._failed_attempts = 0
        self._failed_checks = 0
        self._failed_probes = 0
        self._latest: deque[tuple[float, bool]] = deque()
        self._dropped = 0
        self._failing_since = now
        self._closed_at = -math.inf
        self._relapses = 0
        self._next_probe_at = now

    @property
    def next_probe_at(self) -> float:
        """When the next probe is due, monotonic seconds."""
        return self._next_probe_at

    def attempt_ended(self, outcome: Outcome, now: float, reason: object = "") -> None:
        """Learns how a user's attempt ended; `reason` says, as text, what went wrong with a dropped one."""
        if outcome is Outcome.IGNORE or self.state is not BreakerState.CLOSED:
            return
        dropped = outcome is Outcome.DROPPED
        latest = self._latest
        latest.append((now, dropped))
        self._dropped += dropped
        while len(latest) > RATE_WINDOW or latest[0][0] < now - RATE_SPAN_S:
            self._dropped -= latest.popleft()[1]
        if not dropped:
            self._failed_attempts = 0
            return
        if self._failed_attempts == 0:
            self._failing_since = now
        self._failed_attempts += 1
        in_a_row = self._failed_attempts >= ATTEMPTS_TO_OPEN and now - self._failing_since >= RUN_S
        too_many = len(self._latest) >= RATE_LEAST and self._dropped >= RATE_TO_OPEN * len(self._latest)
        if in_a_row or too_many:
            self._open(now, str(reason))

    def begin_probe(self) -> bool:
        """Marks a probe as under way. Returns whether it has to be a synthetic inference."""
        if self.state is BreakerState.CLOSED:
            return False
        self._enter(BreakerState.HALF_OPEN)
        return True

    def probe_succeeded(self, now: float) -> None:
        """Learns that the probe passed."""
        if self.state is BreakerState.OPEN:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._enter(BreakerState.CLOSED)
            self.reason = ""
            self._closed_at = now
            self._failed_attempts = 0
            self._failed_probes = 0
            self._latest.clear()
            self._dropped = 0
        self._failed_checks = 0
        self._next_probe_at = now + CHECK_INTERVAL_S

    def probe_failed(self, now: float, random: float, reason: str) -> None:
        """Learns that the probe failed, and why. `random` in [0, 1) spreads the next one."""
        if self.state is BreakerState.CLOSED:
            self._failed_checks += 1
            self._next_probe_at = now
            if self._failed_checks >= CHECKS_TO_OPEN:
                self._open(now, reason)
            return
        self._enter(BreakerState.OPEN)
        self.reason = reason
        wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**self._failed_probes)
        self._failed_probes = min(self._failed_probes + 1, 16)
        self._next_probe_at = now + wait * (1.0 - SPREAD * random)

    def _enter(self, state: BreakerState) -> None:
        self.state = state
        self.admits = state is BreakerState.CLOSED

    def _open(self, now: float, reason: str) -> None:
        self._enter(BreakerState.OPEN)
        self.reason = reason or "it failed"
        self._failed_probes = 0
        self._relapses = self._relapses + 1 if now - self._closed_at < RELAPSE_S else 0
        wait = FIRST_WAIT_S * 2.0 ** min(self._relapses, 16) if self._relapses else 0.0
        self._next_probe_at = now + min(LONGEST_RELAPSE_WAIT_S, wait)
