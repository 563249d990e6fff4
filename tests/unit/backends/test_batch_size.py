"""How many rows may share a run, by how long runs take."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from backends.batch_size import MEASURED_FOR_S, rows_that_pay


class Bench:
    """Runs of a model that take `once_s` and `row_s` for each row; some are disturbed, as on a busy machine."""

    def __init__(self, once_s: float, row_s: float, disturbed: Callable[[], bool] = lambda: False) -> None:
        self.now = 0.0
        self.ran: list[int] = []
        self._once_s, self._row_s, self._disturbed = once_s, row_s, disturbed

    def time_of(self, rows: int) -> float:
        self.ran.append(rows)
        took_s = (self._once_s + self._row_s * rows) * (10 if self._disturbed() else 1)
        self.now += took_s
        return took_s

    def rows(self, most: int = 64) -> int:
        return rows_that_pay(self.time_of, most, lambda: self.now)


def test_a_model_that_costs_the_same_for_any_number_of_rows_takes_as_many_as_there_may_be() -> None:
    assert Bench(0.001, 0).rows() == 64


def test_a_model_that_takes_twice_as_long_for_twice_the_rows_takes_one() -> None:
    assert Bench(0, 0.001).rows() == 1


def test_it_stops_where_more_rows_save_little() -> None:
    assert Bench(0.001, 0.0001).rows() == 16


def test_a_slow_model_is_not_measured_for_long() -> None:
    bench = Bench(1.0, 0.01)
    assert bench.rows() == 1
    assert bench.ran == [1]


def test_a_disturbance_does_not_decide() -> None:
    turns = iter([False, True, True, False, True] + 1000 * [False])
    assert Bench(0.001, 0, lambda: next(turns)).rows() == 64


@given(st.floats(0, 1), st.floats(1e-6, 1), st.integers(1, 64))
def test_it_keeps_to_the_bound_and_to_its_time(once_s: float, row_s: float, most: int) -> None:
    bench = Bench(once_s, row_s)
    rows = bench.rows(most)
    assert 1 <= rows <= most
    assert rows & (rows - 1) == 0
    longest = (once_s + row_s * max(bench.ran)) * 2
    assert bench.now <= MEASURED_FOR_S + longest + once_s + row_s
