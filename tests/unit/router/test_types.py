"""What a model's spec lets in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidTensor
from router.model import DTYPES, ImageSpec, ModelSpec, Tensor, TensorSpec
from router.stages import Decode, Grayscale, Normalize, Resize
from router.types import EncodedImage, nbytes, round_up_to_power_of_two, row_count

dimensions = st.sampled_from((-1, 1, 2, 3))
shapes = st.lists(dimensions, max_size=4).map(tuple)


def filled(dtype: str, shape: tuple[int, ...]) -> Tensor:
    return np.full(shape, b"", object) if dtype == "string" else np.zeros(shape, DTYPES[dtype])


@given(shapes, st.lists(st.integers(0, 3), max_size=4).map(tuple))
def test_a_shape_fits_if_every_dimension_does(wanted: tuple[int, ...], actual: tuple[int, ...]) -> None:
    fits = len(wanted) == len(actual) and all(
        a == w or (w == -1 and a >= 1) for a, w in zip(actual, wanted, strict=False)
    )
    assert TensorSpec("float32", wanted).accepts(actual) is fits


@given(st.sampled_from(sorted(DTYPES)), st.sampled_from(sorted(DTYPES)))
def test_only_the_declared_dtype_passes(declared: str, given_dtype: str) -> None:
    spec = TensorSpec(declared, (2,))
    if declared == given_dtype:
        spec.check(filled(given_dtype, (2,)), "inputs.x")
        return
    with pytest.raises(InvalidTensor, match=rf"inputs\.x has dtype .* must be {declared}") as caught:
        spec.check(filled(given_dtype, (2,)), "inputs.x")
    assert caught.value.field == "inputs.x"


def test_bytes_in_the_other_order_are_another_dtype() -> None:
    with pytest.raises(InvalidTensor):
        TensorSpec("float32", (1,)).check(np.zeros(1, ">f4"), "inputs.x")


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 2), (1, 3, 1), (3,)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidTensor, match="has shape") as caught:
        TensorSpec("float32", (-1, 3)).check(np.zeros(shape, np.float32), "inputs.x")
    assert caught.value.field == "inputs.x"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_not_finite_is_refused_unless_the_model_wants_it(dtype: str, value: float) -> None:
    tensor = np.array([0.0, value], dtype)
    TensorSpec(dtype, (2,), allow_nonfinite=True).check(tensor, "inputs.x")
    with pytest.raises(InvalidTensor, match="finite"):
        TensorSpec(dtype, (2,)).check(tensor, "inputs.x")


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float", (1,)), ("", (1,)), ("object", (1,)), ("int8", (0,)), ("int8", (-2,))]
)
def test_a_spec_of_nonsense_is_refused(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"dtype|dimension"):
        TensorSpec(dtype, shape)


TWO = ModelSpec(
    "two",
    "1",
    {"a": TensorSpec("float32", (-1, 2)), "b": TensorSpec("int64", (-1,)), "fixed": TensorSpec("bool", (3,))},
    {"y": TensorSpec("float32", (-1,))},
)


def inputs(a: int = 2, b: int = 2) -> dict[str, Tensor]:
    return {"a": np.zeros((a, 2), np.float32), "b": np.zeros(b, np.int64), "fixed": np.zeros(3, np.bool_)}


@given(st.integers(1, 5), st.integers(1, 5))
def test_all_inputs_agree_on_the_rows(a: int, b: int) -> None:
    if a == b:
        TWO.check_inputs(inputs(a, b))
        return
    with pytest.raises(InvalidTensor, match=f"inputs.b has {b} rows, another input has {a}") as caught:
        TWO.check_inputs(inputs(a, b))
    assert caught.value.field == "inputs.b"


@pytest.mark.parametrize("name", ["a", "b", "fixed"])
def test_a_missing_input_is_named(name: str) -> None:
    given_inputs = inputs()
    del given_inputs[name]
    with pytest.raises(InvalidTensor, match=rf"inputs\.{name} is missing; two takes a, b, fixed") as caught:
        TWO.check_inputs(given_inputs)
    assert caught.value.field == f"inputs.{name}"


def test_an_input_too_many_is_named() -> None:
    with pytest.raises(InvalidTensor, match=r"inputs\.c is not an input of two") as caught:
        TWO.check_inputs(inputs() | {"c": np.zeros(1, np.float32)})
    assert caught.value.field == "inputs.c"


@given(st.dictionaries(st.sampled_from("abc"), st.tuples(st.sampled_from(sorted(DTYPES)), shapes), min_size=1))
def test_synthetic_inputs_pass_the_models_own_check(declared: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    specs = {name: TensorSpec(*spec) for name, spec in declared.items()}
    model = ModelSpec("m", "1", specs, {"y": TensorSpec("float32", (-1,))})
    model.check_inputs(model.synthetic_inputs())


@pytest.mark.parametrize(
    ("input_shape", "output_shape", "batchable"),
    [((-1, 2), (-1,), True), ((-1, 2), (1,), False), ((2, 2), (-1,), False), ((-1,), (), False), ((), (-1,), False)],
)
def test_rows_can_be_split_if_every_tensor_has_them(
    input_shape: tuple[int, ...], output_shape: tuple[int, ...], batchable: bool
) -> None:
    model = ModelSpec("m", "1", {"x": TensorSpec("int8", input_shape)}, {"y": TensorSpec("int8", output_shape)})
    assert model.batchable is batchable
    rows = 4 if input_shape and input_shape[0] == -1 else 2
    payload = {"x": np.zeros(tuple(rows if size == -1 else size for size in input_shape), np.int8)}
    assert row_count(payload, model) == (rows if batchable else 1)
    assert row_count(EncodedImage(b"", "image/png"), model) == 1


def test_sizes_are_what_crosses_the_network() -> None:
    text = np.array([b"abc", b""], dtype=object)
    assert nbytes({"x": np.zeros((3, 2), np.float32), "t": text}) == 24 + (4 + 3) + (4 + 0)
    assert nbytes(EncodedImage(b"12345", "image/png")) == 5


@given(st.integers(0, 1 << 40))
def test_a_size_is_rounded_up_to_the_next_power_of_two(size: int) -> None:
    rounded = round_up_to_power_of_two(size)
    assert rounded.bit_count() == 1
    assert rounded >= size
    assert rounded == 1 or rounded < 2 * size


@pytest.mark.parametrize("stages", [(), (Grayscale(),), (Grayscale(), Decode()), (Decode(), Decode())])
def test_the_first_stage_and_no_other_decodes(stages: Any) -> None:
    with pytest.raises(ValueError, match="decode"):
        ImageSpec("x", stages)


def test_stages_are_named_in_order() -> None:
    spec = ImageSpec("x", (Decode(), Grayscale(), Resize(8, 8), Normalize(0, 255)))
    assert spec.names == ("decode", "grayscale", "resize", "normalize")
    assert spec.decode == Decode()


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Decode(max_pixels=0), "max_pixels"),
        (lambda: Resize(0, 8), "width"),
        (lambda: Resize(8, 8193), "height"),
        (lambda: Normalize(0, 0), "std"),
    ],
)
def test_stages_of_nonsense_are_refused(make: Any, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        make()
