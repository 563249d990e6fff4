"""What the counters make of the attempts of a request: hedges, retries and fallbacks, each counted once."""

from __future__ import annotations

import pytest

from app.metrics import Metrics
from router.errors import BackendTimeout, Outcome
from router.execution import HEDGE_LOST
from router.types import AttemptRecord, Role


def record(backend: str, role: Role, error: str | None = None, outcome: Outcome = Outcome.SUCCESS) -> AttemptRecord:
    return AttemptRecord(backend, outcome, error, role=role, site="cloud")


def counted(*attempts: AttemptRecord) -> dict[str, float]:
    """The counters that these attempts of a request moved, by name and labels."""
    metrics = Metrics()
    metrics.failed("m", "p", BackendTimeout("late"), attempts)
    return {
        f"{sample.name.removeprefix('hybrid_router_')} {sample.labels.get('backend')} {last}": sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if (last := sample.labels.get("result") or sample.labels.get("reason"))
    }


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        (
            [record("cloud", "first", "backend-timeout"), record("edge", "fallback")],
            {"fallbacks_total cloud backend-timeout": 1.0},
        ),
        ([record("cloud", "first", HEDGE_LOST), record("edge", "hedge")], {"hedges_total edge won": 1.0}),
        ([record("cloud", "first"), record("edge", "hedge", HEDGE_LOST)], {"hedges_total edge lost": 1.0}),
        (
            [record("cloud", "first", "backend-unavailable"), record("cloud", "retry")],
            {"retries_total cloud answered": 1.0},
        ),
        (
            [
                record("cloud", "first", "backend-unavailable"),
                record("cloud", "retry", "backend-unavailable"),
                record("edge", "fallback"),
            ],
            {
                "retries_total cloud backend-unavailable": 1.0,
                "fallbacks_total cloud backend-unavailable": 1.0,
            },
        ),
        (
            [
                record("cloud", "first", "backend-unavailable"),
                record("edge", "hedge", HEDGE_LOST),
                record("cloud", "retry"),
            ],
            {"hedges_total edge lost": 1.0, "retries_total cloud answered": 1.0},
        ),
    ],
)
def test_each_attempt_is_counted_for_what_it_was(attempts: list[AttemptRecord], expected: dict[str, float]) -> None:
    assert counted(*attempts) == expected


def test_the_same_error_with_two_outcomes_is_two_counters() -> None:
    metrics = Metrics()
    for outcome in (Outcome.IGNORE, Outcome.DROPPED):
        timed_out = record("cloud", "first", "backend-timeout", outcome)
        metrics.failed("m", "p", BackendTimeout("late"), [timed_out])
    for outcome in (Outcome.IGNORE, Outcome.DROPPED):
        labels = {"model": "m", "backend": "cloud", "outcome": outcome.value, "error": "backend-timeout"}
        assert metrics.registry.get_sample_value("hybrid_router_attempts_total", labels) == 1.0
