"""What a check is, and what can come of it.

Invariants:
- A check ends in one of four ways: it passes, it fails, what it is about is not offered, or it could not be tried.
- A check that cannot be tried says why; it never passes.
- Only a failed check of the level REQUIRED makes a server one that does not conform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.rest import Rest
    from conformance.rpc import Rpc


class Level(Enum):
    """Who says so."""

    REQUIRED = "required"
    """The protocol's own text."""

    EXTENSION = "extension"
    """An extension, or what clients in use rely on."""


class Status(Enum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    NOT_OFFERED = "not offered"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a check ended over one transport.

    Attributes:
        status: Which way.
        sentence: What was seen; empty where there is nothing to say.
    """

    status: Status
    sentence: str = ""


class Ended(Exception):
    """A check's end other than that it passed; the message is the sentence."""

    status: Status


class Fails(Ended):
    """The server does not do what the check says."""

    status = Status.FAIL


class NotOffered(Ended):
    """The server says that it has no such thing."""

    status = Status.NOT_OFFERED


class NotTried(Ended):
    """The models at hand do not allow to try it."""

    status = Status.NOT_TRIED


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
