"""Image stages on real files, made here: right pixels in the right layout, and bounds that hold."""

from __future__ import annotations

import asyncio
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backends.image import FORMATS, preprocess
from backends.onnx import OnnxBackend, OnnxOptions, OnnxVariant
from policies.loader import load
from router.errors import UnprocessableImage
from router.model import ImageSpec, ModelSpec, Tensor, TensorSpec
from router.ports import BackendContext, Call
from router.stages import Decode, Grayscale, Normalize, Resize, Stage
from router.types import EncodedImage, nbytes

ROOT = Path(__file__).parents[3]


def encoded(pixels: Tensor, media_type: str = "image/png", mode: str | None = None) -> EncodedImage:
    """A real file of these pixels."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, FORMATS[media_type], lossless=True)
    return EncodedImage(buffer.getvalue(), media_type)


def run(image: EncodedImage, shape: tuple[int, ...], *stages: Stage, dtype: str = "float32") -> Tensor:
    """What the stages make of an image for a model with an input of this shape."""
    model = ModelSpec("m", "1", {"x": TensorSpec(dtype, shape)}, {"y": TensorSpec("float32", (-1,))})
    tensors = preprocess(image, ImageSpec("x", (Decode(max_pixels=10_000), *stages)), model)
    assert tensors.keys() == {"x"}
    model.check_inputs(tensors)
    return tensors["x"]


def gradient(height: int, width: int) -> Tensor:
    """Pixels [H, W, 3], all different."""
    flat = np.arange(height * width * 3, dtype=np.uint32) * 7 % 256
    return flat.astype(np.uint8).reshape(height, width, 3)


sides = st.integers(1, 20)


@given(sides, sides, st.sampled_from(["image/png", "image/bmp", "image/webp"]))
def test_channels_come_last_or_first_as_the_model_declares(height: int, width: int, media_type: str) -> None:
    pixels = gradient(height, width)
    image = encoded(pixels, media_type)
    last = run(image, (-1, height, width, 3), dtype="uint8")
    if (height, width, 3) != (3, height, width):
        np.testing.assert_array_equal(last[0], pixels)
    first = run(image, (-1, 3, height, width), dtype="uint8")
    np.testing.assert_array_equal(first[0], pixels.transpose(2, 0, 1))
    assert first.flags.c_contiguous


@given(sides, sides)
def test_grey_may_be_flat_or_square_or_one_channel(height: int, width: int) -> None:
    pixels = gradient(height, width)[..., 0]
    for shape in ((-1, height, width), (-1, height * width), (-1, 1, height, width), (-1, height, width, 1)):
        made = run(encoded(pixels), shape, Grayscale())
        assert made.dtype == np.float32
        np.testing.assert_array_equal(made.reshape(height, width), pixels)


@given(sides, sides, sides, sides, st.sampled_from(["nearest", "box", "bilinear"]))
def test_resizing_gives_the_size(height: int, width: int, to_height: int, to_width: int, filter: str) -> None:
    resize = Resize(to_width, to_height, filter)  # type: ignore[arg-type]
    made = run(encoded(np.full((height, width, 3), 77, np.uint8)), (-1, to_height, to_width), Grayscale(), resize)
    np.testing.assert_array_equal(made, 77)


def test_box_averages_and_nearest_picks() -> None:
    checkers = np.array([[0, 200], [200, 0]], np.uint8)
    assert run(encoded(checkers), (-1, 1), Grayscale(), Resize(1, 1, "box")).tolist() == [[100]]
    assert run(encoded(checkers), (-1, 1), Grayscale(), Resize(1, 1, "nearest")).tolist() in ([[0]], [[200]])


def test_normalising_is_subtraction_and_division() -> None:
    made = run(encoded(np.array([[0, 255]], np.uint8)), (-1, 2), Grayscale(), Normalize(127.5, 127.5))
    np.testing.assert_allclose(made, [[-1, 1]])


def test_grey_is_luma() -> None:
    red = encoded(np.array([[[255, 0, 0]]], np.uint8))
    assert run(red, (-1, 1), Grayscale()).tolist() == [[pytest.approx(0.299 * 255, abs=1)]]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_every_mode_of_a_picture_is_read(mode: str) -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    np.testing.assert_array_equal(run(encoded(white, mode=mode), (-1, 16), Grayscale()), 255)


def test_a_jpeg_is_read_to_within_its_losses() -> None:
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    made = run(encoded(pixels, "image/jpeg"), (-1, 16, 16, 3))
    np.testing.assert_allclose(made[0], pixels, atol=4)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of some bytes whose header claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"), [(101, 100), (10_001, 1), (20_000, 20_000), (60_000, 60_000), (2**31 - 1,) * 2]
)
def test_a_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    bomb = EncodedImage(png_that_claims(width, height), "image/png")
    tracemalloc.start()
    try:
        with pytest.raises(UnprocessableImage):
            run(bomb, (-1, 1), Grayscale(), Resize(1, 1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_what_is_too_large_is_told_the_bound() -> None:
    with pytest.raises(UnprocessableImage, match=r"101 x 100 pixels; this model takes up to 10000"):
        run(EncodedImage(png_that_claims(101, 100), "image/png"), (-1, 1))


def test_the_bound_itself_is_allowed() -> None:
    assert run(encoded(np.zeros((100, 100), np.uint8)), (-1, 10_000), Grayscale()).shape == (1, 10_000)


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp", "image/bmp"])
@given(st.data())
def test_a_truncated_or_garbled_file_is_unprocessable_and_nothing_else(media_type: str, data: st.DataObject) -> None:
    whole = encoded(gradient(12, 12), media_type).content
    at = data.draw(st.integers(0, len(whole) - 1))
    content = data.draw(
        st.sampled_from([whole[:at], whole[:at] + data.draw(st.binary(min_size=1, max_size=4)) + whole[at + 1 :]])
    )
    try:
        made = run(EncodedImage(content, media_type), (-1, 12, 12, 3))
    except UnprocessableImage:
        return
    assert made.shape == (1, 12, 12, 3)


@given(st.binary(max_size=200), st.sampled_from(sorted(FORMATS)))
def test_random_bytes_are_unprocessable_and_nothing_else(content: bytes, media_type: str) -> None:
    with pytest.raises(UnprocessableImage):
        run(EncodedImage(content, media_type), (-1, 1))


@pytest.mark.parametrize("claimed", sorted(FORMATS))
@pytest.mark.parametrize("real", sorted(FORMATS))
def test_a_file_is_read_only_as_what_it_claims_to_be(claimed: str, real: str) -> None:
    image = EncodedImage(encoded(gradient(4, 4), real).content, claimed)
    if claimed == real:
        assert run(image, (-1, 4, 4, 3)).shape == (1, 4, 4, 3)
        return
    with pytest.raises(UnprocessableImage, match=f"not an image of type {claimed}"):
        run(image, (-1, 4, 4, 3))


@pytest.mark.parametrize("shape", [(-1, 15), (-1, 3, 4, 5), (2, 4, 4, 3), (-1, 4, 12), (-1, 8, 6)])
def test_stages_that_do_not_give_what_the_model_takes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnprocessableImage, match=r"The stages give \[4, 4, 3\]"):
        run(encoded(gradient(4, 4)), shape)


def test_nothing_can_follow_normalize() -> None:
    with pytest.raises(UnprocessableImage, match="behind normalize"):
        run(encoded(gradient(4, 4)), (-1, 16), Normalize(0, 255), Grayscale())


async def test_the_sample_picture_is_a_seven() -> None:
    spec = load((ROOT / "policies/samples/default.yaml").read_bytes()).models["digits"].spec
    assert spec.image is not None
    image = EncodedImage((ROOT / "deploy/models/seven.png").read_bytes(), "image/png")
    inputs = preprocess(image, spec.image, spec)
    spec.check_inputs(inputs)
    backend = OnnxBackend(OnnxOptions(), BackendContext(ROOT / "deploy/models"))
    servable = await backend.open(spec, OnnxVariant("digits-edge.onnx"))
    reply = await servable.infer(Call(inputs, nbytes(inputs), 1, "r1", {}), asyncio.get_running_loop().time() + 5)
    assert reply.outputs["label"].tolist() == [7]
    await backend.close()


def test_sixteen_bits_a_pixel_keep_their_brightness() -> None:
    deep = Image.fromarray(np.array([[0x0000, 0x4000], [0x8000, 0xFFFF]], np.uint16))
    buffer = io.BytesIO()
    deep.save(buffer, "PNG")
    made = run(EncodedImage(buffer.getvalue(), "image/png"), (-1, 4), Grayscale(), Normalize(0, 255))
    np.testing.assert_allclose(made, [[0, 0.25, 0.5, 1]], atol=0.005)
