"""What calls of a size took of late: the invariants."""

from __future__ import annotations

from statistics import median_low

from hypothesis import given
from hypothesis import strategies as st

from router.recent import OF_LATE, RecentCalls, size_class
from router.types import round_up_to_power_of_two

calls = st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 10)), max_size=60)


@given(st.integers(0, 1 << 30))
def test_a_class_is_what_a_policy_sees_of_the_size(size: int) -> None:
    assert 1 << size_class(size) == round_up_to_power_of_two(size)


@given(calls)
def test_the_median_of_the_latest_of_a_class_counts(given_calls: list[tuple[int, float]]) -> None:
    recent = RecentCalls()
    by_class: dict[int, list[float]] = {}
    for at, (size, seconds) in enumerate(given_calls):
        recent.record(float(at), size, seconds)
        by_class.setdefault(size_class(size), []).append(seconds)
    assert recent.medians(0.0) == {key: median_low(took[-OF_LATE:]) for key, took in by_class.items()}


@given(calls, st.integers(1, 1 << 20))
def test_a_probe_vouches_for_its_own_size_and_below(given_calls: list[tuple[int, float]], size: int) -> None:
    recent = RecentCalls()
    for at, call in enumerate(given_calls):
        recent.record(float(at), *call)
    before = recent.medians(0.0)
    recent.vouched(size)
    assert recent.medians(0.0) == {key: took for key, took in before.items() if key > size_class(size)}


def test_what_is_old_does_not_count() -> None:
    recent = RecentCalls()
    for at in range(OF_LATE):
        recent.record(float(at), 1, 1.0)
    assert recent.medians(OF_LATE - 1.0) == {0: 1.0}
    assert recent.medians(OF_LATE) == {}
