"""How many calls a backend can work on at once, learnt from how they go. Pure: times come in as arguments.

It is a delay-based limit in the manner of TCP Vegas (Brakmo and Peterson, 1995) and of Netflix's concurrency-limits
(`VegasLimit`, `Gradient2Limit`), with two changes. Gradient2 compares a short mean with a long one; in a long overload
the long one follows, and the limit drifts upward without end. Here the baseline only learns from calls that our own
queueing cannot have slowed down, and a decrease lands a little below the knee that Little's law gives (concurrency *
baseline / latency), where the next calls show the true service time. And no window shrinks the limit just to measure
it: such windows shed traffic (envoyproxy/envoy#8337).

Invariants:
- `least` <= value <= `most`.
- Until it was too much for the first time it doubles, as TCP's slow start does: a line that is long is found out in a
  few windows. After that it grows by its square root.
- It grows only in a window in which half of it or more was used, and shrinks only where the mean latency is above
  `TOLERANCE` times the baseline. A call that was cut off counts with the time it had; one that failed does not count:
  failures are the breaker's business, and a server that fails one call in twenty is not a busy one.
- Mean latencies that vary by up to a factor of `TOLERANCE` never shrink it.
- One flight of calls shrinks it at most once: what began before a decrease says nothing about the new limit.

The baseline falls with every faster window. It rises where it must be the backend that became slower: concurrency was
reduced and the latency stayed; or the calls took longer than they would if it did one after the other. While the limit
is not used, there is no need to know.
"""

from __future__ import annotations

import math

TOLERANCE = 2.0
"""A mean latency of so many times the baseline is a queue; what is less is jitter."""

LANDING = 0.9
"""A decrease goes to this share of the knee, so that errors of the baseline shrink rather than grow."""

DEEPEST = 0.25
"""A single decrease keeps at least this share of the concurrency, however odd the window was."""

SETTLING = 3.0
"""So many baselines after a decrease the first window begins: sooner, only the short ones of its calls have ended."""

LEAST_SAMPLES = 40
"""The mean of fewer says little: service times that vary as an exponential does would pass for a queue."""

LEARNING_LANDED = 0.5
"""How much of the first window after a decrease goes into the baseline: it shows the true service time."""

LEARNING = 0.1
"""The same for another window that was faster than the baseline, which may be so by chance."""

STAYED = 0.8
"""Latency that kept more than this share, when concurrency did not, was not of our making."""


class _Window:
    """Sums over the calls since the last look."""

    __slots__ = ("in_flight", "latency_s", "peak", "samples")

    def __init__(self) -> None:
        self.samples = 0
        self.latency_s = 0.0
        self.in_flight = 0
        self.peak = 0


class ConcurrencyLimit:
    """The limit of one backend.

    Args:
        first: Where it starts.
        least: It is never less: a limit of one could not tell a queue from slowness.
        most: It is never more.

    Raises:
        ValueError: Unless 1 <= least <= first <= most.

    Attributes:
        value: How many calls may be in flight now.
    """

    __slots__ = (
        "_baseline",
        "_decreased_at",
        "_exact",
        "_least",
        "_most",
        "_reduced",
        "_settled_at",
        "_window",
        "value",
    )

    def __init__(self, first: int = 4, least: int = 2, most: int = 256) -> None:
        if not 1 <= least <= first <= most:
            raise ValueError(f"1 <= least <= first <= most is required, not {least}, {first}, {most}")
        self._least = least
        self._most = most
        self._exact = float(first)
        self._baseline: float | None = None
        self._decreased_at = self._settled_at = -math.inf
        self._reduced: tuple[float, float] | None = None
        self._window = _Window()
        self.value = first

    @property
    def baseline_s(self) -> float | None:
        """Seconds that a call takes where nothing queues; None before it is known."""
        return self._baseline

    def sampled(self, now: float, latency_s: float, in_flight: int) -> None:
        """Learns from a call that ended in an answer, or was cut off.

        Args:
            now: When it ended.
            latency_s: How long it took, from the moment it was admitted.
            in_flight: How many calls were in flight when it was admitted, itself included.
        """
        if now - latency_s < self._decreased_at or now < self._settled_at:
            return
        window = self._window
        window.samples += 1
        window.latency_s += latency_s
        window.in_flight += in_flight
        if in_flight > window.peak:
            window.peak = in_flight
        if window.samples >= LEAST_SAMPLES and window.samples >= self.value:
            self._look(now, window)

    def _look(self, now: float, window: _Window) -> None:
        """Draws the consequences of a full window."""
        self._window = _Window()
        latency, in_flight = window.latency_s / window.samples, window.in_flight / window.samples
        used = 2 * window.peak >= self.value
        baseline = self._learn(latency, in_flight)
        if not used:
            return
        if latency > TOLERANCE * baseline:
            self._reduced = (latency, in_flight)
            self._shrink(now, in_flight * max(DEEPEST, LANDING * baseline / latency))
        else:
            never_too_much = self._decreased_at == -math.inf
            self._set(self._exact + (self._exact if never_too_much else math.sqrt(self._exact)))

    def _learn(self, latency: float, in_flight: float) -> float:
        """Brings the baseline up to date and returns it."""
        reduced, self._reduced = self._reduced, None
        baseline = self._baseline
        if baseline is None or (reduced is not None and _stayed(reduced, (latency, in_flight))):
            baseline = latency
        elif reduced is not None and latency <= TOLERANCE * baseline:
            baseline += LEARNING_LANDED * (latency - baseline)
        elif latency < baseline:
            baseline += LEARNING * (latency - baseline)
        self._baseline = max(baseline, latency / max(1.0, in_flight))
        return self._baseline

    def _shrink(self, now: float, exact: float) -> None:
        self._decreased_at = now
        self._settled_at = now + SETTLING * (self._baseline or 0.0)
        self._window = _Window()
        self._set(min(self._exact, exact))

    def _set(self, exact: float) -> None:
        self._exact = min(float(self._most), max(float(self._least), exact))
        self.value = int(self._exact)


def _stayed(before: tuple[float, float], after: tuple[float, float]) -> bool:
    """Whether latency stayed though concurrency fell: mean seconds and mean calls in flight, before and after."""
    return after[0] >= STAYED * before[0] and after[1] <= STAYED * before[1]
