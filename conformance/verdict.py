"""What can come of a check.

Invariants:
- A check ends in one of four ways: it passes, it fails, what it is about is not offered, or it could not be tried.
- A check that cannot be tried says why; it never passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
