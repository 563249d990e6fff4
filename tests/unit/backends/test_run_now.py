"""Runs that are made before the call returns: who shares one, whose rows are whose, who is too late, who is bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.batch import Bounds, Stop, run_now
from router.errors import BackendError, BackendFailed, BackendRejectedInput, BackendTimeout
from router.model import Tensor, Tensors
from router.ports import Call
from router.types import Reply, nbytes
from tests.unit.backends.doubling import BAD, Model, rows_of, tensor_of

FOREVER = 1e9
WIDE = Bounds(8, 1 << 20)


def call(*values: float, width: int = 2, dtype: type = np.float32) -> Call:
    """A request with a row for each value."""
    payload = {"x": tensor_of(list(values), width, dtype)}
    return Call(payload, nbytes(payload), len(values), "r1", {})


@dataclass
class Clock:
    """Time that passes while the model runs."""

    run_s: float = 0.0
    now: float = 0.0
    model: Model = field(default_factory=Model)

    def __call__(self) -> float:
        return self.now

    def run(self, inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
        """One run of the model, which nobody can stop."""
        assert stop is None
        self.now += self.run_s
        return self.model(inputs, size, stop)


def ran(
    calls: Sequence[Call], clock: Clock, bounds: Bounds = WIDE, deadlines: Sequence[float] = ()
) -> list[Reply | BackendError]:
    """What became of each, where no deadlines are given without any."""
    return run_now(calls, deadlines or [FOREVER] * len(calls), clock.run, bounds, clock)


def told(answers: Sequence[Reply | BackendError]) -> list[object]:
    """The doubled values of each, or the kind of its error."""
    return [rows_of(answer) if isinstance(answer, Reply) else type(answer) for answer in answers]


def test_what_comes_together_is_one_run_and_each_gets_its_own_rows_and_times() -> None:
    clock = Clock()
    answers = ran([call(1), call(2, 3), call(4)], clock)
    assert told(answers) == [[2], [4, 6], [8]]
    assert clock.model.runs == [[1, 2, 3, 4]]
    assert all(isinstance(one, Reply) and (one.queue_s, one.network_s, one.compute_s) == (0, 0, 1) for one in answers)


def test_nothing_asked_is_nothing_run() -> None:
    clock = Clock()
    assert ran([], clock) == []
    assert clock.model.runs == []


def test_no_run_has_more_rows_or_bytes_than_it_may_and_what_is_larger_runs_by_itself() -> None:
    clock = Clock()
    assert told(ran([call(1), call(2, 3, 4), call(5), call(6)], clock, Bounds(2, 1 << 20))) == [
        [2],
        [4, 6, 8],
        [10],
        [12],
    ]
    assert clock.model.runs == [[1, 5], [2, 3, 4], [6]]
    clock = Clock()
    ran([call(1), call(2), call(3)], clock, Bounds(8, 2 * 8))
    assert clock.model.runs == [[1, 2], [3]]


def test_a_bound_of_one_row_runs_each_by_itself_in_order() -> None:
    clock = Clock(run_s=1.0)
    answers = ran([call(1), call(2), call(3)], clock, Bounds(1, 1 << 20))
    assert clock.model.runs == [[1], [2], [3]]
    assert [answer.queue_s for answer in answers if isinstance(answer, Reply)] == [0, 1, 2]


@pytest.mark.parametrize("other", [call(2, width=3), call(2, dtype=np.float64)], ids=["shape", "type"])
def test_what_differs_in_shape_or_type_does_not_share_a_run(other: Call) -> None:
    clock = Clock()
    assert told(ran([call(1), other, call(3)], clock)) == [[2], [4], [6]]
    assert clock.model.runs == [[1, 3], [2]]


def test_a_bad_one_fails_alone() -> None:
    clock = Clock()
    assert told(ran([call(1), call(BAD), call(2)], clock)) == [[2], BackendFailed, [4]]
    assert clock.model.runs == [[1, BAD, 2], [1], [BAD], [2]]


def test_whoever_is_too_late_when_the_run_is_due_is_not_run() -> None:
    clock = Clock(now=5.0)
    assert told(ran([call(1), call(2), call(3)], clock, deadlines=[5.0, 6.0, 4.0])) == [
        BackendTimeout,
        [4],
        BackendTimeout,
    ]
    assert clock.model.runs == [[2]]


def test_a_run_takes_its_time_from_the_next_one() -> None:
    clock = Clock(run_s=1.0)
    answers = ran([call(1), call(2, width=3), call(3, width=3)], clock, deadlines=[9.0, 0.5, 1.5])
    assert told(answers) == [[2], BackendTimeout, [6]]
    assert clock.model.runs == [[1], [3]]
    clock = Clock(run_s=1.0)
    answers = ran([call(BAD), call(2), call(3)], clock, deadlines=[9.0, 1.5, 9.0])
    assert told(answers) == [BackendFailed, BackendTimeout, [6]]
    assert clock.model.runs == [[BAD, 2, 3], [BAD], [3]]


@pytest.mark.parametrize("error", [BackendRejectedInput("no"), ZeroDivisionError("a vendor's library")])
def test_whatever_a_run_raises_is_a_value_and_an_error_of_ours(error: Exception) -> None:
    def odd(inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
        raise error

    answers = run_now([call(1), call(2)], [FOREVER] * 2, odd, WIDE, Clock())
    expected = type(error) if isinstance(error, BackendError) else BackendFailed
    assert told(answers) == [expected, expected]


def test_a_model_that_does_not_give_a_row_for_each_row_is_asked_by_each_alone() -> None:
    sizes = []

    def forgetful(inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
        sizes.append(len(inputs["x"]))
        return {"y": inputs["x"][:1] * 2}, 0.0

    assert told(run_now([call(1), call(2)], [FOREVER] * 2, forgetful, WIDE, Clock())) == [[2], [4]]
    assert sizes == [2, 1, 1]


def test_texts_share_a_run_too() -> None:
    def echo(inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
        assert size == nbytes(inputs)
        return {"y": inputs["x"]}, 0.0

    payloads = [{"x": np.array(texts, object)} for texts in ([b"a", b"bc"], [b""])]
    calls = [Call(payload, nbytes(payload), len(payload["x"]), "r1", {}) for payload in payloads]
    answers = run_now(calls, [FOREVER] * 2, echo, WIDE, Clock())
    assert [answer.outputs["y"].tolist() for answer in answers if isinstance(answer, Reply)] == [[b"a", b"bc"], [b""]]


asked = st.tuples(
    st.lists(st.sampled_from([1.0, 2.0, 3.0, BAD]), min_size=1, max_size=5),
    st.sampled_from([2, 2, 2, 3]),
    st.sampled_from([FOREVER, FOREVER, 0.0, 1.5, 4.5]),
)


@given(st.lists(asked, max_size=16), st.integers(1, 12), st.integers(1, 200), st.sampled_from([0.0, 1.0]))
def test_each_gets_its_own_rows_its_own_error_or_came_too_late(
    coming: list[tuple[list[float], int, float]], rows: int, size: int, run_s: float
) -> None:
    clock = Clock(run_s)
    calls = [call(*values, width=width) for values, width, _ in coming]
    answers = ran(calls, clock, Bounds(rows, size), [deadline for *_, deadline in coming])
    assert len(answers) == len(coming)
    for (values, width, deadline), answer in zip(coming, answers, strict=True):
        if isinstance(answer, Reply):
            np.testing.assert_array_equal(answer.outputs["y"], tensor_of(values, width) * 2)
            assert answer.queue_s < deadline
        elif isinstance(answer, BackendTimeout):
            assert deadline == 0.0 or (run_s and deadline < FOREVER)
        else:
            assert BAD in values
    largest = max([len(values) for values, *_ in coming], default=0)
    assert all(len(run) <= max(rows, largest) for run in clock.model.runs)
    if run_s == 0.0 and not any(BAD in values for values, *_ in coming):
        ran_once = sorted(value for values, _, deadline in coming if deadline for value in values)
        assert sorted(value for run in clock.model.runs for value in run) == ran_once
