"""Latencies of a result file, as shares of all that was sent."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from planning.report.latencies import MOST_POINTS, curve, groups, load_runs

MODEL = {"name": "made", "note": "untrained weights", "size_mb": 15}


def result(cells: list[dict[str, object]]) -> bytes:
    return json.dumps(
        {"format": "hybrid-router-bench/1", "machine": {"processor": "A76"}, "cells": cells, "model": MODEL}
    ).encode()


def cell(subject: str, rtt_ms: float | None, latencies: list[int], failed: int = 0) -> dict[str, object]:
    network = None if rtt_ms is None else {"rtt_ms": rtt_ms, "up_mbit_per_second": None}
    rounds = [{"sent": len(latencies) + failed, "latency_us": latencies, "load": 0.1}]
    return {"subject": subject, "network": network, "scenario": "single", "rounds": rounds}


@given(st.lists(st.integers(1, 10**8), min_size=1, max_size=1000), st.integers(0, 100), st.integers(1, 1000))
def test_a_share_of_all_was_answered_within_the_time_that_is_named(
    latencies: list[int], failed: int, permille: int
) -> None:
    (run,) = load_runs(result([cell("local", None, latencies, failed)]), "a.json")
    assert (run.failed, run.machine) == (failed, "A76, made, untrained weights")
    taken = run.within_ms(permille / 1000)
    needed = -(-permille * run.sent // 1000)
    if taken is None:
        assert needed > len(latencies)
    else:
        assert sum(one / 1000 <= taken for one in latencies) >= needed > sum(one / 1000 < taken for one in latencies)


@given(st.lists(st.integers(1, 10**8), min_size=1, max_size=1000), st.integers(0, 100))
def test_a_curve_climbs_to_what_was_answered(latencies: list[int], failed: int) -> None:
    (run,) = load_runs(result([cell("local", None, latencies, failed)]), "a.json")
    drawn = curve(run)
    assert len(drawn.sorted_ms) == len(drawn.share) <= MOST_POINTS
    assert list(drawn.sorted_ms) == sorted(drawn.sorted_ms)
    assert drawn.share[-1] == len(latencies) / run.sent
    assert (drawn.sorted_ms[0], drawn.sorted_ms[-1]) == (min(latencies) / 1000, max(latencies) / 1000)


def test_what_crosses_no_line_stands_beside_each_that_does() -> None:
    cells = [cell("local", None, [1]), cell("cloud", 50, [2]), cell("cloud", 200, [3]), cell("split", 50, [4])]
    found = {title: [run.subject for run in runs] for title, runs in groups(load_runs(result(cells), "b/a.json"))}
    assert found == {
        "single, 50 ms round trip, a.json": ["local", "cloud", "split"],
        "single, 200 ms round trip, a.json": ["local", "cloud"],
    }
