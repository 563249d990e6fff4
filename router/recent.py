"""What calls with payloads of about the same size took of late. Pure: samples and times come in as arguments.

Quantiles over a minute say what a backend is like; the latest few calls say what has just become of the line. A thin
uplink shows in the large payloads only, and long before it shows in any quantile.

Invariants:
- A size class is a power of two, as in `Facts.payload_bytes`: up to 1 byte, up to 2, up to 4, and so on.
- The median of the latest `OF_LATE` calls of a class counts.
- What is older than a minute does not count.
- A probe vouches for its own size and below: after it, what larger payloads took is still remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from statistics import median_low

OF_LATE = 5


def size_class(payload_bytes: int) -> int:
    """The exponent of the smallest power of two that is at least the size."""
    return (payload_bytes - 1).bit_length() if payload_bytes else 0


class RecentCalls:
    """The latest calls of each size class."""

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: dict[int, deque[tuple[float, float]]] = {}

    def record(self, now: float, payload_bytes: int, seconds: float) -> None:
        """Adds a call that ended `now`, in time or too late."""
        key = size_class(payload_bytes)
        calls = self._classes.get(key)
        if calls is None:
            calls = self._classes[key] = deque(maxlen=OF_LATE)
        calls.append((now, seconds))

    def vouched(self, payload_bytes: int) -> None:
        """Forgets calls with payloads of this size class and below: a probe has just shown how things are."""
        limit = size_class(payload_bytes)
        self._classes = {key: calls for key, calls in self._classes.items() if key > limit}

    def medians(self, since: float) -> Mapping[int, float]:
        """Median seconds by size class, over calls that ended after `since`."""
        return dict(self._medians(since))

    def _medians(self, since: float) -> Iterator[tuple[int, float]]:
        for key, calls in self._classes.items():
            latest = [seconds for at, seconds in calls if at >= since]
            if latest:
                yield key, median_low(latest)
