"""Pass or fail: a record's figures held against the SLO. Pure.

Invariants:
- A verdict passes only if every check does and the scenario itself found nothing wrong.
- What was to be measured and could not be does not pass.
- One more failed request never turns a verdict that failed into one that passes.
- Where the sender could not keep its rate there is no verdict at all: the figures would be the sender's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from drills.expectations import Answers, Expectation
from drills.figures import LATE_SEND_S, UNAVAILABLE, Figures, measure, turns
from drills.record import Record, Sample
from drills.slo import Slo

SENT_LATE_MAX = 0.01
"""More than a hundredth sent late, and the P99 may be the sender's own."""

MONEY_TOLERANCE_USD = 1e-9
AROUND_CRASH_S = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of the SLO and what became of it.

    Args:
        name: What was checked.
        wanted: What the SLO asks for.
        found: What there was.
        passed: Whether that will do.
        sentence: The same for a person who does not know the names.
    """

    name: str
    wanted: str
    found: str
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a drill's scenario came to.

    Args:
        record: What was seen.
        figures: What it adds up to.
        checks: What of it was held against the SLO.
        no_verdict: Why nothing can be said; empty where it can.
    """

    record: Record
    figures: Figures
    checks: tuple[Check, ...]
    no_verdict: str = ""

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return not self.no_verdict and not self.record.problems and all(check.passed for check in self.checks)

    @property
    def word(self) -> str:
        """PASS, FAIL or NO VERDICT."""
        return "NO VERDICT" if self.no_verdict else "PASS" if self.passed else "FAIL"


def judge(record: Record, expectation: Expectation, slo: Slo) -> Verdict:
    """Holds a record against the SLO, as far as it applies to its scenario."""
    figures = measure(record, expectation, slo.detection_s, slo.recovery_s)
    return Verdict(record, figures, tuple(_checks(record, figures, expectation, slo)), _why_no_verdict(figures))


def _why_no_verdict(figures: Figures) -> str:
    if not figures.requests:
        return "No request was sent."
    if figures.sent_late > SENT_LATE_MAX:
        return (
            f"The sender could not keep its rate: {figures.sent_late:.1%} of the requests left more than "
            f"{LATE_SEND_S * 1000:.0f} ms after they were due. This machine is too busy for this rate."
        )
    return ""


def _checks(record: Record, figures: Figures, expectation: Expectation, slo: Slo) -> Iterator[Check]:
    yield from _answers(figures, expectation, slo)
    if expectation.detection:
        yield from _detection(figures, expectation, slo)
    if expectation.recovery:
        yield _at_most(
            "recovery",
            figures.recovery,
            slo.recovery_s,
            _seconds,
            "from the fault's end until the cloud answered again",
        )
    if expectation.outage:
        yield from _outage(figures, expectation, slo)
    if expectation.flaps:
        yield _at_most(
            "flaps", figures.flaps, slo.flaps_max * figures.faults, _count, "changes of the cloud's state in /status"
        )
    if expectation.phi_on_wire:
        yield from _phi(figures, slo)
    yield from _OF_KIND.get(expectation.answers, _nothing)(record, figures, expectation, slo)


def _answers(figures: Figures, expectation: Expectation, slo: Slo) -> Iterator[Check]:
    what = f"of {_count(figures.requests)} requests got no answer"
    if figures.excused:
        what += f", beside {_count(figures.excused)} that were not to get one"
    if figures.failed:
        what += ": " + ", ".join(f"{number} with {error}" for error, number in sorted(figures.failed.items()))
    yield _at_most("failed", figures.failures, slo.failed_max, _count, what)
    if expectation.answers is not Answers.SHED:  # there, the P99 of what was let in is held against the deadline
        yield _at_most("late", figures.late, slo.late_max, _count, "answers came after their deadline")
    yield _at_most("answered twice", figures.answered_twice, 0, _count, "requests were answered more than once")


def _detection(figures: Figures, expectation: Expectation, slo: Slo) -> Iterator[Check]:
    if expectation.answers is not Answers.REFUSALS:
        yield _at_most(
            "detection",
            figures.detection,
            slo.detection_s,
            _seconds,
            "from the fault's begin until no request paid for it any more",
        )
    yield _at_most(
        "seen down",
        figures.seen_down,
        slo.detection_s,
        _seconds,
        "from the fault's begin until /status said that the cloud is down",
    )


def _outage(figures: Figures, expectation: Expectation, slo: Slo) -> Iterator[Check]:
    outage, local = figures.latency["outage"], figures.latency["local"]
    ratio = outage.p99 / local.p99 if outage and local and local.p99 > 0 else None
    yield _at_most(
        "P99 in the outage",
        ratio,
        slo.p99_outage_ratio,
        lambda value: f"{value:.2f} times",
        "the P99 of the device alone, in the same run"
        + (f" ({_ms(outage.p99)} against {_ms(local.p99)})" if outage and local else ""),
    )
    # Without this, a fault that did nothing would pass every other check.
    yield _at_most(
        "fault was real",
        figures.by_remote_in_outage,
        0,
        _count,
        f"answers by {expectation.remote} in the steady outage",
    )


def _phi(figures: Figures, slo: Slo) -> Iterator[Check]:
    yield _at_most(
        "phi on the line",
        figures.phi_packets,
        slo.phi_marked_packets_max,
        _count,
        "packets to the cloud held data that may not leave the site",
    )
    yield _at_least(
        "line was watched", figures.marked_packets, 1, _count, "packets held other marked data, so the count counts"
    )


def _nothing(*_: object) -> Iterator[Check]:
    return iter(())


def _crash(record: Record, figures: Figures, expectation: Expectation, slo: Slo) -> Iterator[Check]:
    facts = record.facts
    yield _at_most(
        "ready again", facts.get("ready_s"), slo.crash_ready_s, _seconds, "from the crash until the gateway was ready"
    )
    yield _at_most("budget drift", _drift(record), MONEY_TOLERANCE_USD, _usd, "forgotten, or invented, by the restart")


def _drift(record: Record) -> float | None:
    """Dollars by which the ledger after the crash is out: less than before it, or more than requests cost meanwhile."""
    try:
        spent = record.facts["budget_spent_after"] - record.facts["budget_spent_before"]
    except KeyError:
        return None
    around = (record.began - AROUND_CRASH_S, record.ended + AROUND_CRASH_S)
    meanwhile = sum(sample.cost_usd for sample in record.samples if around[0] <= sample.ended <= around[1])
    return max(0.0, -spent, spent - meanwhile)


def _refusals(record: Record, figures: Figures, expectation: Expectation, slo: Slo) -> Iterator[Check]:
    """Once `/status` says that the cloud is down, every request gets a prompt 503 that says when to come again."""
    limit = slo.all_down_answer_ms / 1000
    known = None if figures.seen_down is None else record.began + figures.seen_down
    asked = [
        sample
        for sample in record.samples
        if sample.stream == expectation.stream and known is not None and known <= sample.due < record.ended
    ]
    slow = sum(not _is_prompt_refusal(sample, limit) for sample in asked)
    yield _at_most(
        "prompt refusals",
        slow if asked else None,
        0,
        _count,
        f"of {_count(len(asked))} requests got something other than a 503 with Retry-After within {_ms(limit)}",
    )


def _is_prompt_refusal(sample: Sample, limit_s: float) -> bool:
    return sample.status == UNAVAILABLE and sample.retry_after is not None and sample.latency <= limit_s


def _overload(record: Record, figures: Figures, expectation: Expectation, slo: Slo) -> Iterator[Check]:
    facts: Mapping[str, float] = record.facts
    peak = facts.get("peak_goodput", 0.0)
    yield _at_least(
        "goodput",
        facts["goodput"] / peak if peak > 0 and "goodput" in facts else None,
        slo.goodput_ratio_min,
        lambda value: f"{value:.2f} times",
        "the most that the device answered in time at any rate",
    )
    let_in = figures.latency["during"]
    yield _at_most(
        "P99 let in",
        None if let_in is None else let_in.p99 * 1000,
        facts.get("slo_ms", 0.0),
        lambda value: f"{value:.0f} ms",
        "P99 of what was let in, whether it was answered or ran out of time",
    )


def _spared(record: Record, figures: Figures, expectation: Expectation, slo: Slo) -> Iterator[Check]:
    facts = record.facts
    yield _at_most("peak", facts.get("peak_c"), slo.device_peak_c, _celsius, "was the most that the device came to")
    yield _at_most(
        "spared",
        facts.get("spared_at_c"),
        slo.device_peak_c,
        _celsius,
        "was when the cloud took the device's work over",
    )
    yield _at_most(
        "back", facts.get("back_at_c"), facts.get("back_below_c", 0.0), _celsius, "was when the device got it back"
    )
    began = [at for _, at in turns(sample for sample in record.samples if sample.stream == expectation.stream)]
    lasted = [later - earlier for earlier, later in pairwise(began[1:])]
    yield _at_least(
        "turns", min(lasted, default=None), slo.device_turn_s, _seconds, "was the shortest turn of device or cloud"
    )


_OF_KIND: dict[Answers, Callable[[Record, Figures, Expectation, Slo], Iterator[Check]]] = {
    Answers.BUT_IN_FLIGHT: _crash,
    Answers.REFUSALS: _refusals,
    Answers.SHED: _overload,
    Answers.SPARED: _spared,
}


def _at_most(name: str, found: float | None, most: float, show: Callable[[float], str], what: str) -> Check:
    passed = found is not None and found <= most
    return _check(name, f"≤ {show(most)}", found, passed, show, what)


def _at_least(name: str, found: float | None, least: float, show: Callable[[float], str], what: str) -> Check:
    passed = found is not None and found >= least
    return _check(name, f"≥ {show(least)}", found, passed, show, what)


def _check(name: str, wanted: str, found: float | None, passed: bool, show: Callable[[float], str], what: str) -> Check:
    if found is None:
        return Check(name, wanted, "not seen", False, f"Not seen: {what}.")
    return Check(name, wanted, show(found), passed, f"{show(found)} {what}.")


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _celsius(value: float) -> str:
    return f"{value:.1f} °C"


def _usd(value: float) -> str:
    return f"${value:.9f}"
