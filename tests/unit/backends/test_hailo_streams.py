"""Layout and quantisation on the way to the HAT: numbers come back, and what cannot fit is refused in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from backends.hailo_streams import Conversion, HailoTensor, Stream, fitted
from router.errors import BackendUnavailable
from router.model import Tensor, TensorSpec

SIZES = st.integers(1, 5)
LIMITS = {"uint8": 255, "uint16": 65535}


def converted(spec: TensorSpec, said: HailoTensor, stream: Stream) -> Conversion:
    return fitted("m.hef", {"x": spec}, {"x": said}, [stream])["x"]


def pictures(dtype: Any, **elements: Any) -> st.SearchStrategy[Tensor]:
    """Rows of pictures, channels first."""
    return npst.arrays(dtype, st.tuples(SIZES, SIZES, SIZES, SIZES), **elements)


@given(pictures(np.float32, elements=st.floats(-1e6, 1e6, width=32)))
def test_channels_first_is_transposed_there_and_back(tensor: Tensor) -> None:
    _, channels, height, width = tensor.shape
    spec = TensorSpec("float32", (-1, channels, height, width))
    conversion = converted(spec, HailoTensor(layout="nchw"), Stream("s", (height, width, channels)))
    frames = conversion.to_stream(tensor)
    assert frames.shape == (len(tensor), height, width, channels)
    assert all(frames[at[0], at[2], at[3], at[1]] == tensor[at] for at in np.ndindex(tensor.shape)), (
        "each number is where HailoRT looks for it"
    )
    np.testing.assert_array_equal(conversion.from_stream(frames), tensor)


@given(
    npst.arrays(np.float32, st.tuples(SIZES, st.just(12)), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([(12,), (3, 4), (2, 3, 2), (1, 1, 12)]),
)
def test_flat_keeps_the_order_of_the_elements(tensor: Tensor, frame: tuple[int, ...]) -> None:
    conversion = converted(TensorSpec("float32", (-1, 12)), HailoTensor(layout="flat"), Stream("s", frame))
    frames = conversion.to_stream(tensor)
    assert frames.shape == (len(tensor), *frame)
    np.testing.assert_array_equal(frames.ravel(), tensor.ravel())
    np.testing.assert_array_equal(conversion.from_stream(frames), tensor)


@given(
    st.sampled_from(sorted(LIMITS)),
    st.floats(1e-3, 10),
    st.integers(0, 255),
    npst.arrays(np.float64, (3, 4), elements=st.floats(0, 1)),
)
def test_numbers_within_range_come_back_within_half_a_step(
    format: Any, scale: float, zero_point: int, shares: Tensor
) -> None:
    conversion = converted(
        TensorSpec("float64", (-1, 4)), HailoTensor(format=format), Stream("s", (4,), scale, float(zero_point))
    )
    tensor = (shares * LIMITS[format] - zero_point) * scale
    frames = conversion.to_stream(tensor)
    assert frames.dtype == format
    assert np.abs(conversion.from_stream(frames) - tensor).max() <= scale * 0.5 * (1 + 1e-9)


@given(st.sampled_from(sorted(LIMITS)), npst.arrays(np.float32, (2, 4), elements=st.floats(width=32, allow_nan=False)))
def test_numbers_out_of_range_are_clipped_and_never_wrapped(format: Any, tensor: Tensor) -> None:
    said = HailoTensor(format=format, scale=1.0, zero_point=0.0)
    frames = converted(TensorSpec("float32", (-1, 4)), said, Stream("s", (4,))).to_stream(tensor)
    np.testing.assert_array_equal(frames, np.clip(np.rint(tensor.astype(np.float64)), 0, LIMITS[format]))


@given(pictures(np.uint8))
def test_the_chips_own_numbers_pass_as_they_are(tensor: Tensor) -> None:
    spec = TensorSpec("uint8", (-1, *tensor.shape[1:]))
    stream = Stream("s", tensor.shape[1:], scale=0.0039, zero_point=12.0)
    conversion = converted(spec, HailoTensor(format="uint8"), stream)
    np.testing.assert_array_equal(conversion.to_stream(tensor), tensor)
    np.testing.assert_array_equal(conversion.from_stream(tensor), tensor)


@given(
    st.sampled_from(["float32", "float64", "int32", "uint8"]),
    st.sampled_from(["float32", "uint8", "uint16"]),
    st.sampled_from(["same", "nchw", "flat"]),
    SIZES,
)
def test_what_goes_to_hailort_is_as_hailort_wants_it(dtype: str, format: Any, layout: Any, rows: int) -> None:
    tensor = np.ones((rows, 2, 2, 2), dtype)[:, :, ::-1]
    tensor.flags.writeable = False
    conversion = converted(
        TensorSpec(dtype, (-1, 2, 2, 2)), HailoTensor(layout=layout, format=format), Stream("s", (2, 2, 2))
    )
    frames = conversion.to_stream(tensor)
    assert frames.dtype == format
    for frame in (*frames, *conversion.empty(rows)):
        assert frame.flags.c_contiguous
        assert frame.flags.writeable
        assert frame.shape == (2, 2, 2)
    assert not np.shares_memory(frames, tensor)
    answer = conversion.from_stream(frames)
    assert answer.dtype == dtype
    assert answer.shape == tensor.shape
    assert not np.shares_memory(answer, tensor)


def test_pictures_from_0_to_1_go_as_bytes_where_the_file_says_so() -> None:
    said = HailoTensor(layout="nchw", format="uint8", scale=1 / 255, zero_point=0)
    conversion = converted(TensorSpec("float32", (-1, 1, 1, 3)), said, Stream("s", (1, 3, 1), scale=0.5))
    frames = conversion.to_stream(np.array([[[[0.0, 0.5, 1.0]]]], np.float32))
    assert frames.ravel().tolist() == [0, 128, 255]


def test_a_label_is_rounded_to_the_whole_number_that_the_model_declares() -> None:
    conversion = converted(TensorSpec("int64", (-1,)), HailoTensor(layout="flat"), Stream("s", (1,)))
    labels = conversion.from_stream(np.array([[2.9999], [7.0001]], np.float32))
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("spec", "said", "stream", "sentence"),
    [
        (TensorSpec("float32", (-1, 3, 8, 8)), HailoTensor(), Stream("s", (8, 8, 3)), "layout same"),
        (TensorSpec("float32", (-1, 8, 8, 3)), HailoTensor(layout="nchw"), Stream("s", (8, 8, 3)), "layout nchw"),
        (TensorSpec("float32", (-1, 64)), HailoTensor(layout="flat"), Stream("s", (8, 9)), "layout flat"),
        (TensorSpec("float32", (-1, 64)), HailoTensor(), Stream("s", (8, 8)), "flat"),
        (TensorSpec("float32", (64,)), HailoTensor(), Stream("s", (64,)), "must be -1, the number of rows"),
        (TensorSpec("float32", (-1, -1)), HailoTensor(), Stream("s", (64,)), "others must be known"),
        (TensorSpec("bool", (-1, 4)), HailoTensor(), Stream("s", (4,)), "numbers only"),
        (TensorSpec("string", (-1, 4)), HailoTensor(), Stream("s", (4,)), "numbers only"),
        (TensorSpec("float32", (-1, 4), True), HailoTensor(format="uint8"), Stream("s", (4,)), "NaN"),
        (TensorSpec("float32", (-1, 4)), HailoTensor(), Stream("s", (4,), is_nms=True), "detections"),
        (TensorSpec("float32", (-1, 4)), HailoTensor(stream="t"), Stream("s", (4,)), "has no stream 't'; it has s"),
    ],
)
def test_what_cannot_fit_is_refused_with_what_to_write(
    spec: TensorSpec, said: HailoTensor, stream: Stream, sentence: str
) -> None:
    with pytest.raises(BackendUnavailable, match=sentence):
        converted(spec, said, stream)


def test_streams_are_found_by_name_and_a_lone_one_without() -> None:
    spec, one, other = TensorSpec("float32", (-1, 4)), Stream("one", (4,)), Stream("other", (4,))
    found = fitted("m.hef", {"one": spec, "x": spec}, {"x": HailoTensor(stream="other")}, [one, other])
    assert {name: conversion.stream for name, conversion in found.items()} == {"one": "one", "x": "other"}
    assert fitted("m.hef", {"x": spec}, {}, [one])["x"].stream == "one"
    with pytest.raises(BackendUnavailable, match="Name the one for 'x' with `stream`"):
        fitted("m.hef", {"x": spec}, {}, [one, other])
    with pytest.raises(BackendUnavailable, match="'y', which is no tensor"):
        fitted("m.hef", {"x": spec}, {"y": HailoTensor()}, [one])


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        HailoTensor(scale=scale)
