"""What a check is.

Invariant: only a failed check of the level REQUIRED makes a server one that does not conform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from conformance.rest import Rest
from conformance.rpc import Rpc
from conformance.verdict import Status, Verdict


class Level(Enum):
    """Who says so."""

    REQUIRED = "required"
    """The protocol's own text."""

    EXTENSION = "extension"
    """An extension, or what clients in use rely on."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a server has to do.

    Attributes:
        name: Its id, unique.
        says: What the protocol, an extension or the clients in use ask, in one sentence.
        level: Who asks it.
        rest: Tries it over REST; None where it does not apply. Returns what is worth noting about a pass.
        rpc: Same over gRPC.
    """

    name: str
    says: str
    level: Level
    rest: Callable[[Rest], str | None] | None = None
    rpc: Callable[[Rpc], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one check.

    Attributes:
        check: Which.
        rest: Over REST; None where it does not apply, or was not asked for.
        rpc: Over gRPC; likewise.
    """

    check: Check
    rest: Verdict | None
    rpc: Verdict | None

    @property
    def breaks_the_protocol(self) -> bool:
        """Whether something failed that the protocol requires."""
        failed = any(verdict is not None and verdict.status is Status.FAIL for verdict in (self.rest, self.rpc))
        return failed and self.check.level is Level.REQUIRED
