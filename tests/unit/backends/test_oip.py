"""Raw tensor contents as the Open Inference Protocol has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backends.oip import bytes_tensor, datatype, decode_raw, encode_raw
from router.errors import BackendFailed
from router.model import DTYPES, Tensor

shapes = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)


def tensors(dtype: str) -> st.SearchStrategy[Tensor]:
    if dtype == "string":
        return hnp.arrays(object, shapes, elements=st.binary(max_size=6), fill=st.nothing())
    if dtype == "bfloat16":
        return hnp.arrays(np.uint16, shapes).map(lambda bits: bits.view(DTYPES[dtype]))
    return hnp.arrays(DTYPES[dtype], shapes)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_contents_round_trip_bit_by_bit(dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    back = decode_raw(encode_raw(tensor), dtype, tensor.shape)
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert encode_raw(back) == encode_raw(tensor)
    if dtype == "string":
        assert back.tolist() == tensor.tolist()


@given(st.sampled_from(sorted(DTYPES)), st.binary(max_size=40), shapes)
def test_bytes_that_are_not_that_many_elements_are_a_failure(dtype: str, raw: bytes, shape: tuple[int, ...]) -> None:
    try:
        tensor = decode_raw(raw, dtype, shape)
    except BackendFailed:
        return
    assert tensor.shape == shape
    assert encode_raw(tensor) == raw


def test_elements_are_little_endian_and_text_has_its_length_before_it() -> None:
    assert encode_raw(np.array([1, 258], np.uint16)) == b"\x01\x00\x02\x01"
    assert encode_raw(np.array([b"ab", "\u00e9", 5], dtype=object)) == (
        b"\x02\0\0\0ab" + b"\x02\0\0\0\xc3\xa9" + b"\x01\0\0\0" + b"5"
    )
    assert encode_raw(np.arange(4, dtype=np.int8).reshape(2, 2).T) == b"\x00\x02\x01\x03"


def test_names_of_datatypes() -> None:
    assert [datatype(name) for name in DTYPES] == [
        *("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
        *("FP16", "FP32", "FP64", "BF16", "BYTES"),
    ]
    assert [datatype(dtype) for dtype in DTYPES.values()] == [datatype(name) for name in DTYPES]


def test_one_element_of_bytes() -> None:
    tensor = bytes_tensor(b"file")
    assert (tensor.shape, tensor.tolist()) == ((1, 1), [[b"file"]])
