"""Rows that go separate ways come back in their places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from router.cascade import confident_rows, merge_rows, select_rows
from router.model import ModelSpec, Tensor, TensorSpec
from router.plan import AcceptIf


def model(confidence_shape: tuple[int, ...], rows: int = -1) -> ModelSpec:
    return ModelSpec(
        "m",
        "1",
        {"x": TensorSpec("float32", (rows, 2))},
        {"c": TensorSpec("float32", confidence_shape)},
        confidence_output="c",
    )


confidences = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=st.floats(0, 1, width=32)
)


@given(confidences, st.floats(0, 1))
def test_a_row_is_final_if_its_greatest_value_reaches_the_threshold(values: Tensor, threshold: float) -> None:
    final = confident_rows({"c": values}, model((-1, values.shape[1])), AcceptIf(threshold))
    assert final.dtype == np.bool_
    assert final.tolist() == [any(value >= np.float32(threshold) for value in row) for row in values]


@given(hnp.arrays(np.float32, (3, 2, 4), elements=st.floats(0, 1, width=32)))
def test_a_row_of_several_answers_is_final_if_all_of_them_are(values: Tensor) -> None:
    final = confident_rows({"c": values}, model((-1, 2, 4)), AcceptIf(0.5))
    assert final.tolist() == [all(part.max() >= 0.5 for part in row) for row in values]


def test_a_model_that_gives_one_confidence_a_row() -> None:
    final = confident_rows({"c": np.array([0.9, 0.1, 0.5], np.float32)}, model((-1,)), AcceptIf(0.5))
    assert final.tolist() == [True, False, True]


def test_what_is_not_a_number_is_never_final() -> None:
    values = np.array([[np.nan, 1.0], [1.0, 0.0]], np.float32)
    assert confident_rows({"c": values}, model((-1, 2)), AcceptIf(0.0)).tolist() == [False, True]


@pytest.mark.parametrize(("second", "final"), [(0.95, True), (0.5, False)])
def test_without_rows_the_answer_is_final_as_a_whole(second: float, final: bool) -> None:
    values = np.array([[0.99, 0.0], [second, 0.0]], np.float32)
    assert confident_rows({"c": values}, model((2, 2), rows=2), AcceptIf(0.9)).tolist() == [final]


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Two answers of the same shape, and the rows that the second one was asked for."""
    n = draw(st.integers(1, 8))
    shapes = {"a": (n,), "b": (n, draw(st.integers(1, 3))), "t": (n, 2)}
    held, better = (
        {
            "a": draw(hnp.arrays(np.int64, shapes["a"])),
            "b": draw(hnp.arrays(np.float32, shapes["b"])),
            "t": draw(hnp.arrays(object, shapes["t"], elements=st.binary(max_size=3), fill=st.nothing())),
        }
        for _ in range(2)
    )
    return held, better, draw(hnp.arrays(np.bool_, n))


@given(batches())
def test_selected_rows_merge_back_exactly(batch: tuple[dict[str, Tensor], dict[str, Tensor], Tensor]) -> None:
    held, better, rows = batch
    for tensor in held.values():
        tensor.flags.writeable = False
    before = {name: tensor.copy() for name, tensor in held.items()}
    merged = merge_rows(held, rows, select_rows(better, rows))
    assert merged.keys() == held.keys()
    for name in held:
        assert merged[name].dtype == held[name].dtype
        for index, replaced in enumerate(rows):
            source = better if replaced else held
            np.testing.assert_array_equal(merged[name][index], source[name][index])
        np.testing.assert_array_equal(held[name], before[name])


@given(batches())
def test_selected_rows_are_contiguous_and_in_order(
    batch: tuple[dict[str, Tensor], dict[str, Tensor], Tensor],
) -> None:
    tensors, _, rows = batch
    for name, selected in select_rows(tensors, rows).items():
        assert selected.flags.c_contiguous
        assert selected.shape == (rows.sum(), *tensors[name].shape[1:])
        for ours, index in zip(selected, np.flatnonzero(rows), strict=True):
            np.testing.assert_array_equal(ours, tensors[name][index])
