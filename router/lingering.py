"""Tells those who stay from those who only pass through.

A timer or a task for each request costs more than most requests, and hardly any of them needs it: they are answered
sooner. So each leaves its name here, which is all that it pays, and only for those that are still here after a moment
is anything set up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

GRACE_S = 0.005
"""Nobody has stayed before so many seconds; everybody has after twice as many."""

T = TypeVar("T", bound=Hashable)


class Lingering(Generic[T]):
    """Whoever is here, and for how long roughly.

    Args:
        stayed: Called once with each entry that stays; it may not call back.
    """

    __slots__ = ("_look", "_new", "_seen", "_stayed")

    def __init__(self, stayed: Callable[[T], None]) -> None:
        self._stayed = stayed
        self._new: dict[T, None] = {}
        self._seen: dict[T, None] = {}
        self._look: asyncio.TimerHandle | None = None

    def enter(self, entry: T) -> None:
        """Takes down who is here now."""
        self._new[entry] = None
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(GRACE_S, self._look_around)

    def leave(self, entry: T) -> None:
        """Forgets it, if it is still here."""
        if entry in self._new:
            del self._new[entry]
        else:
            self._seen.pop(entry, None)

    def _look_around(self) -> None:
        stayed, self._seen, self._new = self._seen, self._new, {}
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(GRACE_S, self._look_around) if self._seen else None
        for entry in stayed:
            self._stayed(entry)
