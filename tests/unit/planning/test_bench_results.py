"""Benchmark results: quantiles, the file that outlives its process, energy, and what is a difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from drills.record import Sample
from planning.bench.comparison import LEVEL, Incomparable, compare, differences
from planning.bench.conduct import round_of
from planning.bench.energy import Energy, EnergyMeter, Look, joules_of
from planning.bench.result_file import recover, save
from planning.bench.results import (
    Results,
    UnusableResults,
    added,
    dump_results,
    load_results,
    quantile,
)
from planning.bench.wording import comparison_text, results_text
from tests.unit.planning.benches import a_round, cell, results


def latencies(randomness: np.random.Generator, count: int, factor: float = 1.0) -> NDArray[np.int64]:
    """Log-normal around 5 ms, as latencies are."""
    return np.round(5000 * factor * np.exp(0.4 * randomness.standard_normal(count))).astype(np.int64)


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_the_least_that_so_many_do_not_exceed(values: list[int], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-9 * len(ordered)
    assert found == ordered[0] or sum(value < found for value in ordered) < share * len(ordered)


def test_latency_counts_from_when_a_request_was_due() -> None:
    """A sender that stalled for a second hides nothing of what its users would have waited."""
    stalled = [Sample("s", str(n), n / 100, 1.0, 1.001, 1.0, 200, backend="edge") for n in range(100)]
    lost = Sample("s", "x", 0.5, 1.0, 2.0, 1.0, 504, error="deadline-exceeded")
    made = round_of(0, 1, "now", 0.0, [*stalled, lost], None)
    assert made.latency_us[:2] == (1_001_000, 991_000)
    assert made.late_p99_us > 900_000
    assert (made.sent, made.errors, made.backends) == (101, {"deadline-exceeded": 1}, {"edge": 100})


def test_a_summary_is_of_all_rounds() -> None:
    whole = replace(cell([]), rounds=(a_round([1000, 3000], sent=4), a_round([2000], 1, energy_j=6.0)))
    summary = whole.summary
    assert summary.latency_ms is not None
    assert (summary.sent, summary.answered, summary.latency_ms.p50, summary.latency_ms.p99) == (5, 3, 2.0, 3.0)
    assert summary.failed_share == pytest.approx(0.4)
    assert summary.usd_per_million == pytest.approx(1.0)
    assert summary.joules_per_inference is None  # one of the rounds has none
    measured = replace(whole, rounds=tuple(replace(one, energy_j=6.0) for one in whole.rounds))
    assert measured.summary.joules_per_inference == 4.0


def test_nothing_answered_is_no_division_by_zero() -> None:
    summary = cell([], sent=7).summary
    assert (summary.latency_ms, summary.usd_per_million, summary.failed_share) == (None, None, 1.0)
    assert "a device as used 70%, a node 40%" in results_text(results([cell([1])]))
    assert "local | 50 ms | single" in results_text(results([cell([], sent=7, errors={"overloaded": 7})]))


@given(st.lists(st.lists(st.integers(0, 10**9), max_size=20), max_size=4))
def test_a_file_gives_back_what_was_written(lists: list[list[int]]) -> None:
    written = results([cell(times, f"s{number}", energy_j=0.5) for number, times in enumerate(lists)])
    assert load_results(dump_results(written)) == written


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": "other/1"}', b'{"format": "hybrid-router-bench/1"}'])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(UnusableResults):
        load_results(content)


def test_lists_of_unlike_length_are_refused() -> None:
    with pytest.raises(UnusableResults, match="not equally long"):
        load_results(dump_results(results([cell([1, 2], compute_us=(1,))])))


def test_rounds_go_to_their_cells_in_the_plans_order() -> None:
    first, second = cell([1], "a"), cell([2], "b")
    order = [first.key, second.key]
    cells = added(added((), second, order), first, order)
    assert [one.subject for one in cells] == ["a", "b"]
    again = added(cells, replace(second, rounds=(a_round([3], 1),)), order)
    assert [one.round for one in again[1].rounds] == [0, 1]
    assert results(list(again)).finished == {(0, first.key), (0, second.key), (1, second.key)}


def test_a_torn_file_costs_the_last_measurement_only(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert recover(file) is None
    one, two = results([cell([1])], ended=None), results([cell([1]), cell([2], "b")], ended=None)
    save(one, file)
    save(two, file)
    assert recover(file) == two
    file.write_bytes(file.read_bytes()[:100])
    assert recover(file) == one
    file.unlink()
    assert recover(file) == one
    save(replace(two, ended="now"), file)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    file.write_bytes(b"torn")
    with pytest.raises(UnusableResults):
        recover(file)


def test_energy_is_the_packages_own_counter(tmp_path: Path) -> None:
    for zone, used in (("intel-rapl:0", 900), ("intel-rapl:1", 10), ("intel-rapl:0:0", 5)):
        folder = tmp_path / zone
        folder.mkdir()
        (folder / "energy_uj").write_text(str(used * 1_000_000))
        (folder / "max_energy_range_uj").write_text("1000000000")
    meter = EnergyMeter(tmp_path)
    (tmp_path / "intel-rapl:0/energy_uj").write_text("50000000")  # it has gone round
    (tmp_path / "intel-rapl:1/energy_uj").write_text("12000000")
    assert meter.joules() == pytest.approx(150 + 2)
    assert meter.joules() == 0.0
    (tmp_path / "intel-rapl:1/energy_uj").unlink()
    assert meter.joules() is None
    assert EnergyMeter(tmp_path / "none").joules() is None


def alike(randomness: np.random.Generator, count: int, likeness: float) -> NDArray[np.int64]:
    """Latencies of which each is much like the one before, as behind a queue: AR(1), log-normal around 5 ms."""
    state = float(randomness.standard_normal())
    states = np.empty(count)
    for number, fresh in enumerate(randomness.standard_normal(count)):
        state = likeness * state + (1 - likeness**2) ** 0.5 * float(fresh)
        states[number] = state
    return np.round(5000 * np.exp(0.4 * states)).astype(np.int64)


@pytest.mark.parametrize("rounds", [2, 3])
@pytest.mark.parametrize("likeness", [0.8, 0.95])
def test_rounds_keep_the_level_where_neighbours_are_alike(likeness: float, rounds: int) -> None:
    tried, wrong = 40, 0
    for seed in range(tried):
        randomness = np.random.default_rng(seed)
        a, b = ([alike(randomness, 200, likeness) for _ in range(rounds)] for _ in range(2))
        wrong += any(one.verdict in ("slower", "faster") for one in differences(a, b, randomness))
    assert wrong <= LEVEL * tried + 2 * (LEVEL * (1 - LEVEL) * tried) ** 0.5


def test_one_round_claims_no_level() -> None:
    randomness = np.random.default_rng(2)

    def measured(rounds: int, empty: int = 0) -> Results:
        lists = [alike(randomness, 200, 0.9).tolist() for _ in range(rounds)] + [[]] * empty
        made = tuple(a_round(times, number, sent=200) for number, times in enumerate(lists))
        return results([replace(cell([]), rounds=made), replace(cell([]), subject="silent")])

    kept = compare(measured(3), measured(2))
    assert kept.level == LEVEL
    assert "at most 5% of the cells" in comparison_text(kept)
    for one in (measured(1), measured(1, empty=2)):
        found = compare(measured(3), one)
        assert found.level is None
        text = comparison_text(found)
        assert "at most" not in text
        assert "a difference may be that round's own and nothing more, in local | 50 ms | single." in text


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100)), min_size=1, max_size=20), st.floats(0, 5))
def test_an_estimate_lies_between_least_and_most_that_was_drawn(said: list[tuple[float, float]], rest: float) -> None:
    at, looks = 7.0, []
    for pause, watts in said:
        at += pause
        looks.append(Look(at, watts))
    seconds = at + rest - looks[0].at
    joules = joules_of(looks, at + rest)
    assert joules is not None
    drawn = [watts for _, watts in said]
    assert min(drawn) * seconds - 1e-6 <= joules <= max(drawn) * seconds + 1e-6


def test_one_silent_look_and_no_look_are_no_estimate() -> None:
    assert joules_of([Look(0.0, 5.0), Look(1.0, None)], 2.0) is None
    assert joules_of([], 2.0) is None
    assert joules_of([Look(1.0, 5.0), Look(3.0, 8.0)], 4.0) == 18.0


def test_an_estimate_is_marked_in_file_and_table() -> None:
    samples = [Sample("s", str(n), n / 10, n / 10, n / 10 + 0.01, 1.0, 200, backend="edge") for n in range(4)]
    estimated = round_of(0, 1, "now", 0.0, samples, Energy(12.0, estimated=True))
    counted = round_of(1, 1, "now", 0.0, samples, Energy(4.0, estimated=False))
    made = replace(cell([]), rounds=(estimated, counted))
    assert (made.summary.joules_per_inference, made.summary.joules_estimated) == (2.0, True)
    text = results_text(load_results(dump_results(results([made]))))
    assert "~2.000" in text
    assert "an estimate" in text
    assert "~" not in results_text(results([replace(made, rounds=(counted,))]))


def test_results_that_say_nothing_of_estimates_were_counted() -> None:
    content = dump_results(results([cell([1], energy_j=3.0)]))
    older = content.replace(b',"energy_estimated":false', b"").replace(b',"joules_estimated":false', b"")
    assert older != content
    assert load_results(older) == load_results(content)


@pytest.mark.parametrize(("count", "rounds"), [(150, 1), (60, 3)])
def test_of_equal_things_no_more_cells_differ_than_the_level_says(count: int, rounds: int) -> None:
    tried, wrong = 40, 0
    for seed in range(tried):
        randomness = np.random.default_rng(seed)
        a, b = ([latencies(randomness, count) for _ in range(rounds)] for _ in range(2))
        wrong += any(one.verdict in ("slower", "faster") for one in differences(a, b, randomness))
    assert wrong <= LEVEL * tried + 2 * (LEVEL * (1 - LEVEL) * tried) ** 0.5


@pytest.mark.parametrize(("factor", "verdict"), [(1.4, "slower"), (0.7, "faster")])
def test_a_real_difference_is_found(factor: float, verdict: str) -> None:
    randomness = np.random.default_rng(7)
    found = differences([latencies(randomness, 1000)], [latencies(randomness, 1000, factor)], randomness)
    assert [one.verdict for one in found] == [verdict] * 3
    median = found[0]
    assert median.low is not None
    assert median.high is not None
    assert median.low < 5 * (factor - 1) < median.high


def test_a_difference_of_one_round_in_three_is_the_machines_mood() -> None:
    randomness = np.random.default_rng(3)
    a = [latencies(randomness, 300) for _ in range(3)]
    b = [latencies(randomness, 300), latencies(randomness, 300), latencies(randomness, 300, 1.6)]
    assert differences(a, b, randomness)[0].verdict == "no difference"


def test_too_few_requests_have_no_p99() -> None:
    randomness = np.random.default_rng(1)
    found = differences([latencies(randomness, 120)], [latencies(randomness, 120, 10.0)], randomness)
    assert [one.verdict for one in found] == ["slower", "slower", "too few"]
    assert found[2].low is None


def test_a_comparison_is_the_same_again_and_can_be_read() -> None:
    randomness = np.random.default_rng(5)
    a, b = (results([cell(latencies(randomness, 200).tolist())]) for _ in range(2))
    assert not any("late" in warning for warning in compare(a, b).warnings)
    b = results([cell(list(b.cells[0].rounds[0].latency_us), late_p99_us=9000)])
    b = replace(b, machine={**b.machine, "processor": "another", "busy at the start": "3.0"}, ended=None)
    once = compare(a, b, 3)
    assert once == compare(a, b, 3)
    assert {one.verdict for one in once.cells[0].differences} == {"no difference", "too few"}
    text = comparison_text(once)
    assert "No difference." in text
    assert "The machines differ in processor: one in A, another in B." in text
    assert "B is not finished." in text
    assert "The sender itself was late, which is its machine's doing, in local | 50 ms | single." in text
    assert "busy" not in text


def test_unlike_shares_of_failures_are_warned_of() -> None:
    times = list(range(1000, 1100))
    found = compare(results([cell(times)]), results([cell(times, sent=200)]))
    assert any("not as many failed" in warning for warning in found.warnings)


def test_different_plans_are_not_compared() -> None:
    other = results([cell([1])], plan={"name": "mine", "seed": 2, "rounds": 1}, plan_sha256="def")
    with pytest.raises(Incomparable, match="they differ in seed, device_utilisation, node_utilisation"):
        compare(results([cell([1])]), other)
    with pytest.raises(Incomparable, match="no cell in common"):
        compare(results([cell([1])]), results([cell([1], "b")]))
