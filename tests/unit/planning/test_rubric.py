"""Every line of the seven criteria, with a value on either side: the reference's own, then those that are ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from planning.constraints import broken_constraints
from planning.rubric import CHOICES, Choice, Row, rubric
from planning.workload import Provenance, Workload
from tests.unit.planning.workloads import example

EQUAL: Mapping[Choice, float] = dict.fromkeys(CHOICES, 1.0)
MEASURED = ("edge_p95_ms", "round_trip_ms", "cloud_compute_p95_ms")


def plain(*measured: str, **changes: Any) -> Workload:
    """A workload far from every line: quick everywhere, small, rarely asked, of one site, free to leave."""
    calm: dict[str, Any] = {
        "p95_target_ms": 1000.0,
        "edge_p95_ms": 1.0,
        "device_part_p95_ms": 1.0,
        "round_trip_ms": 1.0,
        "cloud_compute_p95_ms": 1.0,
        "payload_bytes": 1.0,
        "forwarded_bytes": 1.0,
        "size_mb": 1.0,
        "memory_mb": 1.0,
        "device_memory_mb": 100_000.0,
        "device_part": "filtering",
        "forwarded_share": 1.0,
        "rate_per_second": 1.0,
        "device_per_second": 25.0,
        "device_utilisation": 0.7,
        "concurrent": 1.0,
        "sites": 1,
        "residency": "may-leave",
        "offline": "not-needed",
        "provenance": dict.fromkeys(measured, Provenance("measured", "here")),
    }
    return replace(example("kiosk"), **calm | changes)


def row(criterion: str, workload: Workload) -> Row:
    (found,) = (row for row in rubric(workload, EQUAL, CHOICES) if row.criterion == criterion)
    return found


def points(criterion: str, workload: Workload) -> tuple[int, int, int]:
    """Of edge, split and cloud."""
    scores = row(criterion, workload).scores
    return (scores["edge"].points, scores["split"].points, scores["cloud"].points)


def ruled_out(workload: Workload) -> dict[Choice, str]:
    """What decides alone, by the choice that it rules out."""
    return {constraint.excludes: constraint.name for constraint in broken_constraints(workload)}


def test_a_plain_workload_breaks_nothing() -> None:
    assert ruled_out(plain()) == {}


@pytest.mark.parametrize(
    ("target_ms", "assumed", "all_measured"),
    [
        (49.9, (3, 0, 0), (3, 2, 2)),  # below 50 ms: on the device
        (50, (2, 2, 2), (3, 3, 3)),  # 50 to 150 ms: measure both
        (150, (2, 2, 2), (3, 3, 3)),
        (150.1, (3, 3, 3), (3, 3, 3)),  # above 150 ms: the cloud will do
    ],
)
def test_lines_of_latency(target_ms: float, assumed: tuple[int, int, int], all_measured: tuple[int, int, int]) -> None:
    assert points("latency", plain(p95_target_ms=target_ms)) == assumed
    assert points("latency", plain(*MEASURED, p95_target_ms=target_ms)) == all_measured


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (("edge_p95_ms",), (3, 2, 2)),
        (("round_trip_ms", "cloud_compute_p95_ms"), (2, 2, 3)),
        (("round_trip_ms",), (2, 2, 2)),
    ],
)
def test_between_the_lines_of_latency_each_side_is_to_be_measured(
    measured: tuple[str, ...], expected: tuple[int, int, int]
) -> None:
    assert points("latency", plain(*measured, p95_target_ms=100)) == expected


@pytest.mark.parametrize(
    ("model", "expected", "out"),
    [
        ({"size_mb": 299.9}, (3, 2, 2), {}),  # below 300 MB, quantised: fits Pi 5 + HAT
        ({"size_mb": 300}, (1, 2, 3), {}),
        ({"size_mb": 2000, "parameters_billion": 2}, (3, 2, 2), {}),  # 2 to 4 B parameters: fits
        ({"size_mb": 2000, "parameters_billion": 4}, (3, 2, 2), {}),
        ({"size_mb": 2000, "parameters_billion": 4.1}, (1, 2, 3), {}),
        ({"size_mb": 2000, "parameters_billion": 7}, (1, 2, 3), {}),
        ({"size_mb": 2000, "parameters_billion": 7.1}, (0, 2, 3), {"edge": "does not fit"}),  # above 7 B: cloud
        ({"vram_gb": 32}, (3, 2, 2), {}),
        ({"vram_gb": 32.1}, (0, 2, 3), {"edge": "does not fit"}),  # above 32 GB of VRAM: cloud
        ({"memory_mb": 8000, "device_memory_mb": 8000}, (3, 2, 2), {}),
        ({"memory_mb": 8001, "device_memory_mb": 8000}, (0, 2, 3), {"edge": "does not fit"}),
    ],
    ids=str,
)
def test_lines_of_model_size(model: dict[str, float], expected: tuple[int, int, int], out: dict[Choice, str]) -> None:
    workload = plain(**{name: float(value) for name, value in model.items()})
    assert points("model size", workload) == expected
    assert ruled_out(workload) == out


@pytest.mark.parametrize(
    ("concurrent", "expected", "out"),
    [
        (999, (3, 2, 2), {}),  # tens to hundreds: edge
        (1_000, (1, 2, 3), {}),  # thousands at once: a pool with batching
        (9_999, (1, 2, 3), {}),
        (10_000, (0, 0, 3), {"edge": "too many at once", "split": "too many at once"}),  # 10,000 and more: cloud only
    ],
)
def test_lines_of_concurrency(concurrent: float, expected: tuple[int, int, int], out: dict[Choice, str]) -> None:
    assert points("throughput", plain(concurrent=concurrent)) == expected
    assert ruled_out(plain(concurrent=concurrent)) == out
    fleet = plain(concurrent=200 * concurrent, sites=200)
    assert points("throughput", fleet) == expected
    assert ruled_out(fleet) == out


@pytest.mark.parametrize(
    ("rate_per_second", "expected"),
    [
        (700, (3, 2, 2)),
        (701, (2, 2, 2)),
        (1_000, (2, 2, 2)),
        (1_001, (1, 2, 3)),
        (4_000, (1, 2, 3)),
        (4_001, (0, 2, 3)),
    ],
)
def test_hundreds_a_second_are_for_a_device_that_does_as_many(
    rate_per_second: float, expected: tuple[int, int, int]
) -> None:
    """The reference has tens to hundreds a second for a device; how full it may be is ours: 70 %, all, four times."""
    assert points("throughput", plain(rate_per_second=rate_per_second, device_per_second=1000.0)) == expected
    fleet = plain(rate_per_second=10 * rate_per_second, device_per_second=1000.0, sites=10)
    assert points("throughput", fleet) == expected


@pytest.mark.parametrize(
    ("residency", "local_audit", "expected", "out"),
    [
        ("may-leave", False, (3, 3, 3), {}),
        ("may-leave", True, (3, 2, 1), {}),
        ("redacted-only", False, (3, 3, 0), {"cloud": "residency"}),
        ("stays", False, (3, 0, 0), {"cloud": "residency", "split": "residency"}),
    ],
)
def test_lines_of_residency(
    residency: str, local_audit: bool, expected: tuple[int, int, int], out: dict[Choice, str]
) -> None:
    workload = plain(residency=residency, local_audit=local_audit)
    assert points("residency", workload) == expected
    assert ruled_out(workload) == out


@pytest.mark.parametrize(
    ("offline", "expected", "out"),
    [
        ("not-needed", (2, 2, 2), {}),
        ("degraded", (3, 2, 1), {}),
        ("required", (3, 0, 0), {"cloud": "offline", "split": "offline"}),
    ],
)
def test_lines_of_failure_modes(offline: str, expected: tuple[int, int, int], out: dict[Choice, str]) -> None:
    workload = plain(offline=offline)
    assert points("failure modes", workload) == expected
    assert ruled_out(workload) == out


@pytest.mark.parametrize(("share", "expected"), [(0.6, 3), (0.601, 2), (0.85, 2), (0.851, 1), (1.0, 1), (1.001, 0)])
def test_our_lines_of_the_latency_targets_share(share: float, expected: int) -> None:
    workload = plain(edge_p95_ms=1000 * share)
    assert row("latency", workload).scores["edge"].points == expected


@pytest.mark.parametrize(
    ("times", "expected"), [(1.0, 3), (1.09, 3), (1.11, 2), (2.0, 2), (2.01, 1), (5.0, 1), (5.01, 0)]
)
def test_our_lines_of_cost(times: float, expected: int) -> None:
    cost = next(
        row
        for row in rubric(plain(), {"edge": 10.0, "split": 100.0, "cloud": 10 * times}, ("edge", "cloud"))
        if row.criterion == "cost"
    )
    assert cost.scores["cloud"].points == expected


@pytest.mark.parametrize(
    ("updates", "expected"),
    [(10, (3, 2, 2)), (11, (2, 2, 2)), (200, (2, 2, 2)), (201, (1, 1, 3)), (2000, (1, 1, 3)), (2001, (0, 1, 3))],
)
def test_our_lines_of_operations(updates: int, expected: tuple[int, int, int]) -> None:
    assert points("operations", plain(sites=updates, updates_per_month=1.0)) == expected


@pytest.mark.parametrize(("forwarded_share", "expected_ms"), [(0.05, 1), (0.0501, 3)])
def test_a_p95_does_not_speak_of_one_in_twenty(forwarded_share: float, expected_ms: float) -> None:
    assert plain(forwarded_share=forwarded_share).split_p95_ms == pytest.approx(expected_ms, abs=0.01)
