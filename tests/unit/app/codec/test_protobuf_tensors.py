"""Tensors from protobuf: views over the bytes, exact about shapes, never larger than what was sent."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from app.codec.json_tensors import MAX_RANK
from app.codec.protobuf_tensors import tensor_from_contents
from app.codec.raw_tensors import tensor_from_raw
from backends.oip import encode_raw
from router.errors import InvalidTensor
from router.model import DTYPES, Tensor
from tests.unit.app.codec.test_json_tensors import tensors

TYPED = {
    "bool": "bool_contents",
    "int8": "int_contents",
    "int16": "int_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "uint8": "uint_contents",
    "uint16": "uint_contents",
    "uint32": "uint_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
    "string": "bytes_contents",
}
"""The protocol's own table: which list each dtype stands in."""


def raw(content: bytes, dtype: str, shape: Sequence[int]) -> Tensor:
    return tensor_from_raw(content, 0, len(content), dtype, shape, "inputs.x")


def typed(dtype: str, shape: Sequence[int], **lists: Any) -> Tensor:
    return tensor_from_contents(service_pb2.InferTensorContents(**lists), dtype, shape, "inputs.x")


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_raw_bytes_round_trip(dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    back = raw(encode_raw(tensor), dtype, tensor.shape)
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert back.tolist() == tensor.tolist()


@pytest.mark.parametrize("dtype", TYPED)
@given(st.data())
def test_typed_contents_round_trip(dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(dtype))
    back = typed(dtype, tensor.shape, **{TYPED[dtype]: tensor.reshape(-1).tolist()})
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert back.tolist() == tensor.tolist()


def test_raw_numbers_are_not_copied() -> None:
    content = np.arange(6, dtype=np.float32).tobytes()
    assert np.shares_memory(raw(content, "float32", [2, 3]), np.frombuffer(content, np.uint8))


def test_half_floats_come_raw_only() -> None:
    with pytest.raises(InvalidTensor, match="raw_input_contents"):
        typed("float16", [1], fp32_contents=[1.0])


@given(st.sampled_from(sorted(TYPED)), st.sampled_from(sorted(set(TYPED.values()))))
def test_elements_in_another_list_are_refused(dtype: str, other: str) -> None:
    if other != TYPED[dtype]:
        with pytest.raises(InvalidTensor, match=TYPED[dtype]):
            typed(dtype, [1], **{other: [b"a" if other == "bytes_contents" else 1]})


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("int8", [128]), ("int8", [-129]), ("int16", [1 << 15]), ("uint8", [256]), ("uint16", [1 << 16])],
)
def test_a_number_that_does_not_fit_is_refused(dtype: str, values: list[int]) -> None:
    with pytest.raises(InvalidTensor, match=f"does not fit {dtype}"):
        typed(dtype, [1], **{TYPED[dtype]: values})


def test_a_bool_is_0_or_1() -> None:
    assert raw(b"\0\1", "bool", [2]).tolist() == [False, True]
    with pytest.raises(InvalidTensor, match="neither 0 nor 1"):
        raw(b"\0\2", "bool", [2])


@pytest.mark.parametrize(
    "content",
    [
        b"\1",
        b"\2\0\0\0a",
        b"\1\0\0\0a\1",
        b"\xff\xff\xff\xff",
        b"\1\0\0\0a\1\0\0\0",
    ],
)
def test_texts_that_end_too_soon_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidTensor, match="ends in the middle"):
        raw(content, "string", [1])


@given(st.binary(max_size=64), st.sampled_from(sorted(DTYPES)), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_whatever_comes_is_a_tensor_of_that_shape_or_the_callers_fault(
    content: bytes, dtype: str, shape: list[int]
) -> None:
    with suppress(InvalidTensor):
        assert raw(content, dtype, shape).shape == tuple(shape)


@pytest.mark.parametrize("dtype", TYPED)
@pytest.mark.parametrize("shape", [[1 << 40], [1 << 20, 1 << 20], [2**31] * MAX_RANK, [1] * 10_000, [-1], [0]])
def test_a_claim_costs_nothing(dtype: str, shape: list[int]) -> None:
    """A terabyte is refused before anything is allocated for it."""
    content = encode_raw(np.full(4, b"" if dtype == "string" else 0, DTYPES[dtype]))
    lists = {TYPED[dtype]: [b"" if dtype == "string" else 0] * 4}
    tracemalloc.start()
    try:
        with pytest.raises(InvalidTensor):
            raw(content, dtype, shape)
        with pytest.raises(InvalidTensor):
            typed(dtype, shape, **lists)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
