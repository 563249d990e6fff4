"""Tensors of the conformance kit: what is made fits, what is read back is counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.tensors import DTYPES, Model, Spec, Tensor, differ, from_plain, from_raw, sample, samples
from conformance.verdict import Fails

DATATYPES = st.sampled_from(sorted(DTYPES))
SHAPES = st.lists(st.integers(-1, 4).filter(bool), min_size=1, max_size=3).map(tuple)
SPECS = st.builds(Spec, st.just("x"), DATATYPES, SHAPES)


@given(SPECS, st.integers(1, 3))
def test_a_sample_fits_what_it_is_made_from(spec: Spec, rows: int) -> None:
    tensor = sample(spec, rows)
    assert tensor.datatype == spec.datatype
    assert tensor.values.dtype == DTYPES[spec.datatype]
    assert len(tensor.shape) == len(spec.shape)
    for place, (size, got) in enumerate(zip(spec.shape, tensor.shape, strict=True)):
        assert got == (size if size > 0 else rows if place == 0 else 1)


@given(SPECS, st.integers(1, 3))
def test_every_form_reads_back_as_what_was_written(spec: Spec, rows: int) -> None:
    tensor = sample(spec, rows)
    written = {"x": tensor}
    assert differ(written, {"x": from_raw("x", spec.datatype, tensor.shape, tensor.raw())}) is None
    for nested in (False, True):
        assert differ(written, {"x": from_plain("x", spec.datatype, tensor.shape, tensor.plain(nested))}) is None
    assert len(tensor.plain()) == math.prod(tensor.shape)


@given(SPECS, st.integers(-3, 3).filter(bool))
def test_another_number_of_elements_is_a_failure(spec: Spec, off: int) -> None:
    tensor = sample(spec, 2)
    wrong = (tensor.shape[0] + off, *tensor.shape[1:])
    with pytest.raises(Fails):
        from_plain("x", spec.datatype, wrong, tensor.plain())
    with pytest.raises(Fails):
        from_raw("x", spec.datatype, wrong, tensor.raw())


@given(DATATYPES, st.lists(st.integers(0, 5), max_size=2), st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(datatype: str, shape: list[int], data: bytes) -> None:
    try:
        tensor = from_raw("x", datatype, shape, data)
    except Fails:
        return
    assert tensor.raw() == data


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (Tensor("x", "FP32", np.array([0.0, 1.0], "f4")), None),
        (Tensor("x", "FP32", np.array([0.0, 1.0001], "f4")), None),
        (Tensor("x", "FP32", np.array([0.0, 1.1], "f4")), "output x has other values"),
        (Tensor("x", "FP32", np.array([[0.0, 1.0]], "f4")), r"output x is FP32[2] against FP32[1, 2]"),
        (Tensor("x", "INT64", np.array([0, 1])), r"output x is FP32[2] against INT64[2]"),
        (Tensor("y", "FP32", np.array([0.0, 1.0], "f4")), "outputs ['x'] against ['y']"),
    ],
)
def test_what_tells_two_answers_apart_is_said(other: Tensor, sentence: str | None) -> None:
    one = Tensor("x", "FP32", np.array([0.0, 1.0], "f4"))
    assert differ({"x": one}, {other.name: other}) == sentence


def test_a_model_batches_if_every_input_leaves_its_rows_open() -> None:
    open_spec, fixed = Spec("a", "FP32", (-1, 4)), Spec("b", "FP32", (4,))
    assert Model("m", (), (open_spec,), ()).batches
    mixed = Model("m", (), (open_spec, fixed), ())
    assert not mixed.batches
    assert [tensor.shape for tensor in samples(mixed, 3)] == [(3, 4), (4,)]
