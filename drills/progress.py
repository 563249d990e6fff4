"""How a drill gets on, while it does: one line that is rewritten on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TextIO

from drills.figures import quantile
from drills.record import Sample

RECENT_S = 1.0
PLAIN_EVERY_S = 5.0


class Progress:
    """Tells a person what is going on.

    Args:
        out: Where to.
        clock: Monotonic seconds.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._rewrites = out.isatty()
        self._title = ""
        self._phase = ""
        self._phase_ends = self._told = clock()
        self._requests = self._failed = 0
        self._backends: Counter[str] = Counter()
        self._recent: deque[tuple[float, float]] = deque()

    def scenario(self, title: str) -> None:
        """Another scenario begins."""
        self._title = title
        self._phase = ""
        self._requests = self._failed = 0
        self._backends.clear()
        self._recent.clear()

    def phase(self, what: str, seconds: float) -> None:
        """A part of it begins, and takes about this long."""
        self._phase = what
        self._phase_ends = self._clock() + seconds
        self._tell()

    def saw(self, samples: Sequence[Sample]) -> None:
        """These requests have ended."""
        self._requests += len(samples)
        self._failed += sum(not sample.answered for sample in samples)
        self._backends.update(sample.backend for sample in samples if sample.answered)
        self._recent.extend((sample.ended, sample.latency) for sample in samples if sample.answered)
        newest = max((ended for ended, _ in self._recent), default=0.0)
        while self._recent and self._recent[0][0] < newest - RECENT_S:
            self._recent.popleft()
        if self._rewrites or self._clock() - self._told >= PLAIN_EVERY_S:
            self._tell()

    def say(self, sentence: str) -> None:
        """A line that stays."""
        self._out.write(f"\r\x1b[K{sentence}\n" if self._rewrites else f"{sentence}\n")
        self._out.flush()

    def _tell(self) -> None:
        self._told = self._clock()
        left = max(0.0, self._phase_ends - self._told)
        parts = [self._title, f"{self._phase}, {left:.0f} s left"]
        if self._requests:
            backends = ", ".join(f"{backend} {count:,}" for backend, count in sorted(self._backends.items()))
            parts += [f"{self._requests:,} requests", f"{self._failed:,} failed", backends]
        if self._recent:
            p99 = quantile(sorted(latency for _, latency in self._recent), 0.99)
            parts.append(f"P99 {p99 * 1000:.1f} ms")
        line = " | ".join(filter(None, parts))
        self._out.write(f"\r\x1b[K{line}" if self._rewrites else f"{line}\n")
        self._out.flush()
