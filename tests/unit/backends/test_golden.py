"""Golden inputs: what passes, what does not, and files that hold none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.golden import Golden, GoldenFailed, read_golden
from router.model import DTYPES, Tensor

GOLDEN = Golden(
    {"x": np.arange(6, dtype=np.float32).reshape(3, 2)},
    {"label": np.array([1, 0, 1]), "score": np.array([[0.5], [0.25], [1.0]], np.float32)},
    0.01,
)


def test_it_is_read_as_it_was_written_and_written_alike(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        GOLDEN.write(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = read_golden(tmp_path / "a.npz")
    assert found.tolerance == 0.01
    np.testing.assert_array_equal(found.inputs["x"], GOLDEN.inputs["x"])
    found.check(GOLDEN.outputs)


@given(off=st.floats(-1, 1), row=st.integers(0, 2))
def test_floats_may_be_off_by_the_tolerance(off: float, row: int) -> None:
    score = GOLDEN.outputs["score"].astype(np.float64)
    score[row] += off
    answered = {"label": GOLDEN.outputs["label"], "score": score}
    if abs(off) < 0.0099:
        GOLDEN.check(answered)
    elif abs(off) > 0.0101:
        with pytest.raises(GoldenFailed, match="score is wrong for 1 of 3 golden inputs, by up to"):
            GOLDEN.check(answered)


def test_integers_must_be_the_same() -> None:
    with pytest.raises(GoldenFailed, match="label is wrong for 2 of 3 golden inputs"):
        GOLDEN.check({**GOLDEN.outputs, "label": np.array([0, 0, 0])})


def test_an_output_that_is_missing_of_another_shape_or_not_a_number_fails() -> None:
    with pytest.raises(GoldenFailed, match="nothing for label"):
        GOLDEN.check({"score": GOLDEN.outputs["score"]})
    with pytest.raises(GoldenFailed, match="shape"):
        GOLDEN.check({**GOLDEN.outputs, "label": np.array([1])})
    with pytest.raises(GoldenFailed, match="score is wrong for 3"):
        GOLDEN.check({**GOLDEN.outputs, "score": np.full((3, 1), np.nan, np.float32)})


@given(content=st.binary(max_size=100))
def test_a_file_that_holds_none_fails(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.golden.npz"
    path.write_bytes(content)
    with pytest.raises(GoldenFailed):
        read_golden(path)


def test_a_file_that_is_missing_or_holds_other_arrays_fails(tmp_path: Path) -> None:
    with pytest.raises(GoldenFailed, match="cannot be read"):
        read_golden(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", pixels=np.zeros(3))
    with pytest.raises(GoldenFailed, match="it has pixels"):
        read_golden(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("array", "tolerance"),
    [
        (np.zeros((0, 2), np.float32), 0.0),
        (np.array(["text"]), 0.0),
        (np.zeros((1, 2), DTYPES["bfloat16"]), 0.0),
        (np.zeros((1, 2), np.float32), float("inf")),
        (np.zeros((1, 2), np.float32), float("nan")),
        (np.zeros((1, 2), np.float32), -1.0),
    ],
    ids=["no rows", "text", "bfloat16", "any", "none", "negative"],
)
def test_a_file_that_everything_or_nothing_would_pass_is_refused(
    array: Tensor, tolerance: float, tmp_path: Path
) -> None:
    path = tmp_path / "model.golden.npz"
    Golden({"x": np.ones((1, 2), np.float32)}, {"y": array}, tolerance).write(path)
    with pytest.raises(GoldenFailed):
        read_golden(path)
