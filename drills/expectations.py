"""What is expected of each scenario: which of the SLO's figures apply, and what is excused. Data only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Answers(Enum):
    """What requests of the main load are to get while the fault lasts."""

    ALWAYS = "an answer, always"
    BUT_IN_FLIGHT = "an answer, except for what the gateway was working on when it was killed"
    REFUSALS = "a prompt 503 once it is known that nobody can answer"
    SPARED = "an answer, always; by the cloud while the device is hot"
    SHED = "an answer in time, or a refusal that says when to come again"


@dataclass(frozen=True, slots=True)
class Expectation:
    """Which figures of the SLO apply to a scenario.

    Args:
        answers: What the main load is to get.
        stream: The main load's stream.
        watched: The `model/backend` of `/status` whose state tells of the fault; the backend is the one that is hit.
        detection: Whether the fault makes the cloud useless, so that it has to be noticed.
        recovery: Whether the cloud has to answer again after the fault.
        outage: Whether there is a steady outage, to be compared with the device alone.
        flaps: Whether changes of the cloud's state are counted.
        fault_every_s: Seconds between the begins of faults, where there are many; each may change the state anew.
        phi_on_wire: Whether the line was looked at.
    """

    answers: Answers = Answers.ALWAYS
    stream: str = "primary"
    watched: str = "digits/cloud"
    detection: bool = True
    recovery: bool = True
    outage: bool = True
    flaps: bool = True
    fault_every_s: float | None = None
    phi_on_wire: bool = True

    @property
    def remote(self) -> str:
        """The backend that is hit."""
        return self.watched.partition("/")[2]


OUTAGE = Expectation()

# The cloud is well all the while, or well enough: nothing has to be detected.
UNDISTURBED = Expectation(detection=False, outage=False)

EXPECTATIONS: dict[str, Expectation] = {
    "wan-cut": OUTAGE,
    "wan-flap": Expectation(detection=False, outage=False, fault_every_s=2.0),
    "brownout": OUTAGE,
    # What is small still fits through the line, and whether to send it there is for the gateway to weigh.
    "bandwidth": UNDISTURBED,
    "cloud-crash": OUTAGE,
    "cloud-hang": OUTAGE,
    "cloud-errors": OUTAGE,
    "dns-loss": OUTAGE,
    "gateway-crash": Expectation(answers=Answers.BUT_IN_FLIGHT, detection=False, outage=False),
    "policy-garbage": UNDISTURBED,
    "disk-full": UNDISTURBED,
    "local-model-corrupt": UNDISTURBED,
    "all-down": Expectation(answers=Answers.REFUSALS, watched="digits-cloud-only/cloud", outage=False),
    "overload": Expectation(
        answers=Answers.SHED,
        stream="slow",
        watched="slow/edge",
        detection=False,
        recovery=False,
        outage=False,
        flaps=False,
    ),
    # The cloud is well all the while; it is the device that must not be asked, and nobody is to notice.
    "overheat": replace(UNDISTURBED, answers=Answers.SPARED, stream="kiosk", recovery=False),
}
