"""Records of drills that never were, for what judges and reports them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from drills.record import Record, Sample, Sighting, Wire

BASELINE_S, BEGAN, ENDED, OVER = 4.0, 9.0, 19.0, 25.0
DEADLINE_S = 0.25
CLOUD_S, EDGE_S, CUT_OFF_S = 0.023, 0.003, 0.2
DETECTED_S, RECOVERED_S = 0.3, 0.9


def answer(due: float, latency: float, backend: str, id: str, **more: Any) -> Sample:
    """A request that was answered."""
    attempts = ((backend, "success", ""),)
    given: dict[str, Any] = {"status": 200, "backend": backend, "attempts": attempts, "cost_usd": 3e-6} | more
    return Sample("primary", id, due, due, due + latency, DEADLINE_S, **given)


def fallback(due: float, latency: float, id: str, *, paid: bool) -> Sample:
    """A request that the device answered in the cloud's stead."""
    tried = (("cloud", "dropped", "backend-timeout"),) if paid else ()
    return answer(due, latency, "edge", id, degraded=True, attempts=(*tried, ("edge", "success", "")), cost_usd=0.0)


def failure(due: float, id: str = "failed", **more: Any) -> Sample:
    """A request that got nothing."""
    given: dict[str, Any] = {"status": 0, "error": "TimeoutError"} | more
    return Sample("primary", id, due, due, due + 1.25, DEADLINE_S, **given)


def primary(due: float, id: str) -> Sample:
    """A request of an outage that goes well."""
    if due < BEGAN or due >= ENDED + RECOVERED_S:
        return answer(due, CLOUD_S * (1 + int(due * 100) % 7 / 10), "cloud", id)
    if due < BEGAN + DETECTED_S:
        return fallback(due, CUT_OFF_S + EDGE_S, id, paid=True)
    return fallback(due, EDGE_S * (1 + int(due * 100) % 5 / 5), id, paid=False)


def outage(
    request: Callable[[float, str], Sample] = primary,
    scenario: str = "wan-cut",
    model: str = "digits",
    facts: Mapping[str, float] | None = None,
) -> Record:
    """An outage of ten seconds that goes well, unless `request` has it otherwise."""
    local = [
        replace(answer(number / 100, EDGE_S * (1 + number % 5 / 5), "edge", f"l{number}"), stream="local")
        for number in range(int(BASELINE_S * 100))
    ]
    main = [request(number / 100, f"p{number}") for number in range(int(BASELINE_S * 100), int(OVER * 100))]
    sightings = [
        Sighting(at, {f"{model}/edge": True, f"{model}/cloud": not BEGAN + 0.35 <= at < ENDED + RECOVERED_S})
        for at in (number / 20 for number in range(int(OVER * 20)))
    ]
    wire = Wire(20_000, 4_000_000, {"primary": 1_100, "phi": 0})
    fault = "The WAN is cut: packets vanish and nothing is refused."
    return Record(scenario, fault, BEGAN, ENDED, (*local, *main), tuple(sightings), wire, facts or {})


def shifted(record: Record, seconds: float) -> Record:
    """The same, that many seconds later."""
    return replace(
        record,
        began=record.began + seconds,
        ended=record.ended + seconds,
        samples=tuple(
            replace(s, due=s.due + seconds, sent=s.sent + seconds, ended=s.ended + seconds) for s in record.samples
        ),
        sightings=tuple(replace(sighting, at=sighting.at + seconds) for sighting in record.sightings),
    )


def with_sample(record: Record, sample: Sample) -> Record:
    """The same with one more request."""
    return replace(record, samples=tuple(sorted((*record.samples, sample), key=lambda s: s.due)))
