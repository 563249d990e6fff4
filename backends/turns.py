"""Tells requests that come alone in a turn of the event loop from those that come with others."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod


class Turns(ABC):
    """Gathers what is ready in one turn of the event loop (always the same), for a subclass to deal with at its end.

    A lone request is not put off: it is told to go at once, unless the turn before brought several.
    """

    __slots__ = ("_crowded", "_due", "_gathered", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gathered = 0
        self._crowded = False
        self._due = False

    def alone(self) -> bool:
        """Whether the request that asks had better go at once: nobody came with it, nor several just before it."""
        if self._crowded or self._due:
            return False
        self._end_turn_later()
        return True

    def _gather(self) -> None:
        """One more has come whose turn ends with this one of the loop."""
        self._gathered += 1
        if not self._due:
            self._end_turn_later()

    @abstractmethod
    def _end(self) -> None:
        """Deals with what was gathered."""

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all requests come on: kept, since up to Python 3.11 each look for it is a system call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _end_turn_later(self) -> None:
        self._due = True
        (self._loop or self._running_loop()).call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._due = False
        self._crowded = self._gathered > 1
        self._gathered = 0
        self._end()
