"""Latencies of a result file, as shares of all that was sent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.bench.plan import Network
from planning.bench.results import CellResults, ModelFacts, dump_results
from planning.report.latencies import MOST_POINTS, curve, groups, load_runs
from planning.sections import UnusableFile
from tests.unit.planning.benches import a_round, results

MACHINE = {"processor": "A76"}
MODEL = ModelFacts("made", "made.onnx", 15.0, "00", "untrained weights")


def result(cells: list[CellResults]) -> bytes:
    return dump_results(results(cells, machine=MACHINE, model=MODEL))


def cell(subject: str, rtt_ms: float | None, latencies: list[int], failed: int = 0) -> CellResults:
    network = None if rtt_ms is None else Network(rtt_ms)
    return CellResults(subject, network, "single", 5.0, (a_round(latencies, sent=len(latencies) + failed),))


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


@given(
    st.lists(st.integers(1, 10**8), min_size=1, max_size=300), st.integers(0, 30), st.sampled_from([0.5, 0.95, 0.99])
)
def test_a_quantile_is_the_benchmarks_own_where_none_failed_and_never_below_it(
    latencies: list[int], failed: int, share: float
) -> None:
    measured = cell("local", None, latencies, failed)
    (run,) = load_runs(result([measured]), "a.json")
    own = measured.summary.latency_ms
    assert own is not None
    of_answered = {0.5: own.p50, 0.95: own.p95, 0.99: own.p99}[share]
    of_all = run.within_ms(share)
    assert (math.inf if of_all is None else of_all) >= of_answered
    assert failed or of_all == of_answered


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "holds no whole results"),
        (b'{"format": "\xff"}', "holds no whole results"),
        (b'{"format": "other/7"}', "is not of the form hybrid-router-bench/1"),
        (result([cell("local", None, [7])]).replace(b"[7]", b"[7,8]", 1), "not equally long"),
        (result([cell("local", None, [7])]).replace(b"[7]", b"[1" + b"0" * 400 + b"]"), "holds no whole results"),
        (result([cell("local", None, [7])]).replace(b"[7]", b"[-7]"), "holds no whole results"),
        (result([cell("local", None, [])]), "holds no latencies"),
    ],
)
def test_a_file_is_refused_where_the_benchmark_itself_would_refuse_it(content: bytes, said: str) -> None:
    with pytest.raises(UnusableFile, match=rf"^a\.json.* {said}"):
        load_runs(content, "a.json")
