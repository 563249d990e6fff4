"""Tensors from JSON: strict about types, exact about shapes, never larger than the text allows."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.codec.json_tensors import MAX_RANK, check_size, plain, tensor_from_bytes, tensor_from_json
from router.errors import InvalidTensor
from router.model import DTYPES, Tensor

INTEGERS = [name for name, dtype in DTYPES.items() if dtype.kind in "iu"]
FLOATS = [name for name, dtype in DTYPES.items() if dtype.kind in "fV"]
NUMERIC = [*INTEGERS, *FLOATS]

shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple)


def tensors(dtype: str) -> st.SearchStrategy[Tensor]:
    """Any finite tensor of a dtype, one to four dimensions."""
    if dtype == "string":
        return hnp.arrays(object, shapes, elements=st.text(max_size=5).map(str.encode), fill=st.nothing())
    if dtype == "bfloat16":
        return tensors("float32").map(lambda tensor: np.clip(tensor, -1e38, 1e38).astype(DTYPES["bfloat16"]))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype in FLOATS else {}
    return hnp.arrays(DTYPES[dtype], shapes, elements=hnp.from_dtype(DTYPES[dtype], **finite))  # type: ignore[arg-type]


def as_json(tensor: Tensor) -> Any:
    """What a client would write."""
    nested = (tensor.astype(np.float32) if tensor.dtype.kind == "V" else tensor).tolist()
    return json.loads(json.dumps(nested, default=lambda item: item.decode()))


def read(text: str | bytes, dtype: str) -> Tensor:
    return tensor_from_json(text if isinstance(text, bytes) else text.encode(), dtype, "inputs.x")


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data(), st.sampled_from([None, 1, 4, 24]))
def test_a_nested_list_round_trips_however_it_is_indented(dtype: str, data: st.DataObject, indent: int | None) -> None:
    tensor = data.draw(tensors(dtype))
    back = read(json.dumps(as_json(tensor), indent=indent), dtype)
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert back.tolist() == tensor.tolist()


@pytest.mark.parametrize("dtype", NUMERIC)
@given(st.data())
def test_raw_bytes_round_trip(dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    back = tensor_from_bytes(tensor.tobytes(), dtype, list(tensor.shape), "inputs.x")
    assert back.dtype == tensor.dtype
    np.testing.assert_array_equal(back, tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_what_is_written_reads_back(dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    text = orjson.dumps(plain(tensor), option=orjson.OPT_SERIALIZE_NUMPY)
    assert read(text, dtype).tolist() == tensor.tolist()


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize("element", ["true", '"1"', "null", "{}", '""', "NaN", "Infinity", "1e999"])
def test_what_is_no_number_is_refused_as_one(dtype: str, element: str) -> None:
    with pytest.raises(InvalidTensor) as caught:
        read(f"[{element}]", dtype)
    assert caught.value.field == "inputs.x"


@pytest.mark.parametrize(("dtype", "element"), [("bool", "1"), ("bool", '"true"'), ("string", "1"), ("string", "true")])
def test_what_is_no_truth_value_or_text_is_refused_as_one(dtype: str, element: str) -> None:
    with pytest.raises(InvalidTensor):
        read(f"[{element}]", dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_fit_or_are_refused(dtype: str) -> None:
    limits = np.iinfo(DTYPES[dtype])
    assert read(f"[{limits.min}, {limits.max}]", dtype).tolist() == [limits.min, limits.max]
    for outside in (limits.min - 1, limits.max + 1, 1 << 80, -(1 << 80), 1.5, 1e30):
        with pytest.raises(InvalidTensor):
            read(f"[{outside}]", dtype)


@pytest.mark.parametrize(
    ("dtype", "largest", "too_large"),
    [
        ("float16", "65519.99", "65520"),
        ("float32", "3.4028235677973362e+38", "3.4028235677973366e+38"),
        ("float64", "1.7976931348623157e308", "1.8e308"),
    ],
)
def test_a_number_that_would_round_to_infinity_is_refused(dtype: str, largest: str, too_large: str) -> None:
    assert read(f"[{largest}, -{largest}]", dtype).tolist() == [np.finfo(dtype).max, np.finfo(dtype).min]
    for text in (f"[{too_large}]", f"[1, -{too_large}]"):
        with pytest.raises(InvalidTensor, match="must be float"):
            read(text, dtype)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[1, 2], [3]]", "ragged"),
        ("[[1], 2]", "ragged"),
        ("[1, [2]]", "ragged"),
        ("[[[1]], [[2, 3]]]", "ragged"),
        ("[[], [1]]", "ragged"),
        ("1", "nested up to 16 deep"),
        ('"abc"', "nested up to 16 deep"),
        ("", "nested up to 16 deep"),
        ("{}", "nested up to 16 deep"),
        ("[" * (MAX_RANK + 1) + "1" + "]" * (MAX_RANK + 1), "nested up to 16 deep"),
        ("[" * 100_000, "nested up to 16 deep"),
        ("[1" + "[" * 100_000, "inputs.x"),
    ],
)
def test_what_is_no_tensor_is_refused_with_a_reason(text: str, sentence: str) -> None:
    with pytest.raises(InvalidTensor) as caught:
        read(text, "float32")
    assert sentence in caught.value.detail
    assert caught.value.field == "inputs.x"


def test_the_element_that_is_wrong_is_named() -> None:
    with pytest.raises(InvalidTensor, match=r"inputs\.x\[1\]\[0\] must be int8"):
        read("[[1, 2], [true, 4]]", "int8")


@given(st.binary(max_size=40), st.sampled_from(sorted(DTYPES)))
def test_any_bytes_are_a_tensor_or_refused(content: bytes, dtype: str) -> None:
    for text in (content, b"[" + content + b"]"):
        try:
            tensor = read(text, dtype)
        except InvalidTensor:
            continue
        assert tensor.dtype == DTYPES[dtype]


sizes = st.integers(-(1 << 80), 1 << 80) | st.integers(-2, 5) | st.just(10**300)


@given(st.binary(max_size=32), st.sampled_from([*DTYPES, "nonsense", ""]), st.lists(sizes, max_size=20))
def test_any_shape_is_that_of_the_bytes_or_refused(content: bytes, dtype: str, shape: list[int]) -> None:
    try:
        tensor = tensor_from_bytes(content, dtype, shape, "inputs.x")
    except InvalidTensor:
        return
    assert tensor.nbytes == len(content)
    assert list(tensor.shape) == shape


@pytest.mark.parametrize(
    "shape", [[0, 1 << 62], [0, 1 << 70], [1 << 62, 0, 1 << 62], [10**300] * MAX_RANK, [1 << 20] * 2, [-1], [2, -1]]
)
def test_a_claimed_shape_is_refused_before_anything_is_made_of_it(shape: list[int]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidTensor):
            tensor_from_bytes(b"" if 0 in shape else b"1234", "float32", shape, "inputs.x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_text_takes_as_much_memory_as_it_has_letters() -> None:
    text = json.dumps(["a"] * 300 + ["b" * 100_000])
    read('["warm"]', "string")
    tracemalloc.start()
    try:
        assert read(text, "string").shape == (301,)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(text)


@pytest.mark.parametrize(("shape", "elements"), [([2, 3], 5), ([-1], 1), ([1] * (MAX_RANK + 1), 1), ([2, -3], -6)])
def test_a_shape_that_is_not_the_datas_is_refused(shape: list[int], elements: int) -> None:
    with pytest.raises(InvalidTensor, match="shape"):
        check_size(shape, elements, "inputs.x")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("strided", [False, True])
def test_what_json_does_not_have_is_null(dtype: str, strided: bool) -> None:
    tensor = np.array([[1.0, np.nan], [np.inf, -np.inf]], dtype)
    text = orjson.dumps(plain(tensor.T if strided else tensor), option=orjson.OPT_SERIALIZE_NUMPY)
    assert json.loads(text) == ([[1.0, None], [None, None]])


def test_bytes_that_are_no_text_are_written_all_the_same() -> None:
    assert plain(np.array([[b"ok", b"\xff"], ["text", 5]], dtype=object)) == [["ok", "\ufffd"], ["text", "5"]]


@pytest.mark.parametrize("dtype", ["bool", "int8", "float32", "float16", "string"])
def test_a_scalar_can_be_written(dtype: str) -> None:
    scalar = np.array(b"x" if dtype == "string" else 1, dtype=DTYPES[dtype])
    text = orjson.dumps(plain(scalar), option=orjson.OPT_SERIALIZE_NUMPY)
    assert json.loads(text) == ("x" if dtype == "string" else 1)
