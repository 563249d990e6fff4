"""The latency estimator's invariants."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router.latency import (
    FORGET_AFTER_S,
    FRESH_FOR_S,
    LEAST_SPREAD_BYTES,
    ROUND_TRIPS,
    WINDOW,
    LatencyEstimator,
    LatencyPrediction,
)

NOW = 1000.0

seconds = st.floats(0, 100, allow_subnormal=False)
sizes = st.integers(0, 1 << 26)
samples = st.lists(st.tuples(sizes, seconds, seconds), min_size=1, max_size=40)


def prediction_of(measured: list[tuple[int, float, float]]) -> LatencyPrediction:
    estimator = LatencyEstimator()
    for sample in measured:
        estimator.record(NOW, *sample)
    estimator.refresh(NOW)
    assert estimator.prediction is not None
    return estimator.prediction


@given(samples, sizes, sizes)
def test_never_negative_and_never_falling_as_the_payload_grows(
    measured: list[tuple[int, float, float]], one: int, other: int
) -> None:
    prediction = prediction_of(measured)
    small, large = sorted((one, other))
    for quantile in (prediction.p50, prediction.p95, prediction.p99):
        assert 0 <= quantile(small) <= quantile(large)


@given(samples, sizes)
def test_quantiles_are_ordered(measured: list[tuple[int, float, float]], size: int) -> None:
    prediction = prediction_of(measured)
    for part in (prediction.network, prediction.compute, prediction.total):
        assert 0 <= part.p50 <= part.p95 <= part.p99
    assert prediction.p50(size) <= prediction.p95(size) <= prediction.p99(size)


@given(samples)
def test_the_slope_is_never_negative(measured: list[tuple[int, float, float]]) -> None:
    assert prediction_of(measured).seconds_per_byte >= 0


def test_a_network_that_gets_faster_with_size_has_no_slope() -> None:
    assert prediction_of([(0, 1.0, 0.0), (100_000, 0.1, 0.0)]).seconds_per_byte == 0


@given(sizes, st.lists(st.tuples(seconds, seconds), min_size=1, max_size=20))
def test_sizes_that_do_not_vary_give_no_slope(size: int, measured: list[tuple[float, float]]) -> None:
    assert prediction_of([(size, *times) for times in measured]).seconds_per_byte == 0


@given(st.floats(1e-9, 1e-6), st.floats(0, 1), st.lists(sizes, min_size=2, max_size=30, unique=True))
def test_network_time_proportional_to_size_is_found(slope: float, base: float, payloads: list[int]) -> None:
    assume(max(payloads) - min(payloads) >= LEAST_SPREAD_BYTES)
    prediction = prediction_of([(size, base + slope * size, 0.0) for size in payloads])
    assert prediction.seconds_per_byte == pytest.approx(slope, rel=1e-3)
    for size in payloads:
        assert prediction.p50(size) == pytest.approx(base + slope * size, rel=1e-3, abs=1e-3)


def test_there_is_no_prediction_before_the_first_sample() -> None:
    estimator = LatencyEstimator()
    assert estimator.prediction is None
    estimator.refresh(NOW)
    assert estimator.prediction is None


def test_the_quantiles_are_those_of_the_samples() -> None:
    prediction = prediction_of([(0, 0.0, milliseconds / 1000) for milliseconds in range(1, 101)])
    assert tuple(prediction.total) == tuple(prediction.compute) == (0.050, 0.095, 0.099)
    assert tuple(prediction.network) == (0, 0, 0)
    assert prediction.samples == 100


def test_only_the_latest_samples_count() -> None:
    slow = [(0, 0.0, 9.0)] * WINDOW
    prediction = prediction_of([*slow, *[(0, 0.0, 0.001)] * WINDOW])
    assert prediction.p99(0) == 0.001
    assert prediction.samples == WINDOW


@given(samples, sizes, st.floats(100, 1000))
def test_a_call_that_was_cut_off_makes_it_slow(
    measured: list[tuple[int, float, float]], size: int, elapsed: float
) -> None:
    estimator = LatencyEstimator()
    for sample in measured:
        estimator.record(NOW, *sample)
    estimator.record_at_least(NOW, size, elapsed, 0.0)
    estimator.refresh(NOW)
    assert estimator.prediction is not None
    assert estimator.prediction.p99(size) >= elapsed * 0.999


@given(samples)
def test_reads_never_mutate(measured: list[tuple[int, float, float]]) -> None:
    estimator = LatencyEstimator()
    for sample in measured:
        estimator.record(NOW, *sample)
    estimator.refresh(NOW)
    before = estimator.prediction
    assert before is not None
    for size in (0, 1, 1 << 30):
        before.p50(size), before.p95(size), before.p99(size)
    assert estimator.prediction is before
    estimator.refresh(NOW)
    assert estimator.prediction == before


@given(samples)
def test_the_prediction_changes_at_refresh_only(measured: list[tuple[int, float, float]]) -> None:
    estimator = LatencyEstimator()
    seen: list[Any] = []
    for sample in measured:
        estimator.record(NOW, *sample)
        seen.append(estimator.prediction)
    assert seen == [None] * len(measured)


def test_noise_between_small_payloads_is_not_taken_for_bandwidth() -> None:
    prediction = prediction_of([(0, 0.010, 0.0), *[(256, 0.020, 0.0)] * 50])
    assert prediction.p95(1 << 20) == pytest.approx(0.020)


def test_what_is_old_does_not_count() -> None:
    estimator = LatencyEstimator()
    estimator.record(NOW, 0, 0.0, 9.0)
    estimator.record(NOW + FORGET_AFTER_S, 0, 0.0, 0.001)
    later = NOW + FORGET_AFTER_S + 1
    assert estimator.outdated(later)
    estimator.refresh(later)
    assert not estimator.outdated(later)
    assert estimator.prediction is not None
    assert estimator.prediction.p99(0) == 0.001
    estimator.refresh(later + FORGET_AFTER_S)
    assert estimator.prediction is None


def test_it_is_fresh_until_nobody_was_answered_for_a_while() -> None:
    estimator = LatencyEstimator()
    assert not estimator.fresh(NOW, 1)
    estimator.record(NOW, 0, 0.0, 0.001)
    assert estimator.fresh(NOW + FRESH_FOR_S, 1)
    assert not estimator.fresh(NOW + FRESH_FOR_S + 1, 1)


def test_cut_off_calls_do_not_raise_what_suffices() -> None:
    estimator = LatencyEstimator()
    estimator.record(NOW, 0, 0.001, 0.0)
    for _ in range(20):
        estimator.record_at_least(NOW, 0, 0.25, 0.0)
    estimator.refresh(NOW)
    assert estimator.prediction is not None
    assert estimator.prediction.suffices(0.2, 0)
    assert not estimator.prediction.suffices(0.0005, 0)


def test_a_round_trip_that_grows_is_believed_before_any_call_finds_out() -> None:
    estimator = LatencyEstimator()
    for _ in range(ROUND_TRIPS):
        estimator.answered_after(0.02)
    for _ in range(50):
        estimator.record(NOW, 100, 0.025, 0.01)
    estimator.refresh(NOW)
    assert estimator.prediction is not None
    assert estimator.prediction.p50(100) == pytest.approx(0.035)
    for _ in range(ROUND_TRIPS):
        estimator.answered_after(0.5)
    estimator.refresh(NOW)
    assert estimator.prediction.p50(100) == pytest.approx(0.515)
    assert estimator.prediction.network.p50 == pytest.approx(0.505)
    assert estimator.prediction.usual(100) == pytest.approx(0.515)
    estimator.answered_after(0.02)
    estimator.refresh(NOW)
    assert estimator.prediction.p50(100) == pytest.approx(0.035), "and one that shrinks, at once"


def test_a_single_slow_round_trip_is_not_the_networks() -> None:
    estimator = LatencyEstimator()
    estimator.answered_after(0.02)
    estimator.answered_after(0.3)
    assert estimator.round_trip_s == 0.02


def test_a_round_trip_that_is_still_unanswered_counts_as_long_as_it_has_taken() -> None:
    estimator = LatencyEstimator()
    estimator.answered_after(0.02)
    for waited in (0.01, 0.1, 0.2):
        estimator.unanswered_for(waited)
        assert estimator.round_trip_s == max(0.02, waited)
    estimator.answered_after(0.25)
    assert estimator.round_trip_s == 0.02
    estimator.unanswered_for(0.3)
    estimator.never_answered()
    assert estimator.round_trip_s == 0.0
    estimator.answered_after(0.5)
    assert estimator.round_trip_s == 0.5, "what was before it was given up does not count"


@given(samples, seconds, seconds)
def test_a_longer_round_trip_never_makes_a_prediction_shorter(
    measured: list[tuple[int, float, float]], one: float, other: float
) -> None:
    short, long = sorted((one, other))
    predicted = []
    estimator = LatencyEstimator()
    for sample in measured:
        estimator.record(NOW, *sample)
    for rtt in (short, long):
        for _ in range(ROUND_TRIPS):
            estimator.answered_after(rtt)
        estimator.refresh(NOW)
        assert estimator.prediction is not None
        predicted.append(estimator.prediction.p95(0))
    assert predicted[0] <= predicted[1]
