"""What a drill saw: every request that it sent, every look at the gateway, and when the fault was. Values only.

All times are seconds since the run began, on the monotonic clock of one machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of the load, and what came back.

    Args:
        stream: Which of the run's streams sent it.
        id: The request's id.
        due: When it should have been sent. Latency counts from here, so that a stalled sender hides nothing.
        sent: When it was.
        ended: When its answer was complete, or when it was given up.
        deadline: Seconds that it allowed the gateway.
        status: HTTP status; 0 where no answer came.
        backend: Whose answer it is; empty where there is none.
        degraded: Whether the answer says that it is a lesser one.
        attempts: Backend, outcome and error code (empty: none) of each attempt that its route reports, in order.
        cost_usd: What the route says that it cost.
        bytes_out: Bytes that the route says left the site.
        retry_after: The Retry-After header in seconds, or None.
        error: The problem's code, or the name of the exception; empty for an answer.
        phases_ms: Queue, network and compute of the attempt whose answer it is, as the route reports them.
    """

    stream: str
    id: str
    due: float
    sent: float
    ended: float
    deadline: float
    status: int
    backend: str = ""
    degraded: bool = False
    attempts: tuple[tuple[str, str, str], ...] = ()
    cost_usd: float = 0.0
    bytes_out: int = 0
    retry_after: float | None = None
    error: str = ""
    phases_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def latency(self) -> float:
        """Seconds from when it was due to its answer."""
        return self.ended - self.due

    @property
    def answered(self) -> bool:
        """Whether it got an answer, degraded or not."""
        return self.status == 200


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at the gateway's `/status`.

    Args:
        at: When.
        up: For each `model/backend` whether requests may be sent there; None where the gateway did not answer.
    """

    at: float
    up: Mapping[str, bool] | None


@dataclass(frozen=True, slots=True)
class Wire:
    """What crossed the line between site and cloud, counted on the line itself.

    Args:
        packets: Packets or, on a relay, chunks that were looked at.
        bytes: Their size.
        marked: How many of them held the bytes that mark a stream's payload, by stream. A stream that goes to the
            cloud on purpose shows that the count can count.
    """

    packets: int
    bytes: int
    marked: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """One scenario's run, as it was seen from outside.

    Args:
        scenario: Its name.
        fault: What was done, in a sentence.
        began: When the fault began.
        ended: When it ended.
        samples: Every request, in the order in which they were due.
        sightings: Every look, in order.
        wire: What crossed the line, or None where nobody could look.
        facts: Further findings of the scenario, by name, such as seconds until ready after a crash.
        problems: What the scenario itself found wrong, as sentences; any fails the drill.
    """

    scenario: str
    fault: str
    began: float
    ended: float
    samples: tuple[Sample, ...]
    sightings: tuple[Sighting, ...]
    wire: Wire | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
