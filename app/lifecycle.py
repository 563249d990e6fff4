"""Whether the process still wants new work: what readiness says before the door closes."""

from __future__ import annotations


class Lifecycle:
    """One process's way from start to end, as far as the fronts need to know it.

    Attributes:
        draining: Whether it was told to stop; requests are still answered, readiness says no.
    """

    __slots__ = ("draining",)

    def __init__(self) -> None:
        self.draining = False
