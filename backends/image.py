"""Runs a model's image stages on the device: from an image file to the input tensor, within declared bounds."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from router.errors import UnprocessableImage
from router.model import DTYPES, ImageSpec, ModelSpec, Tensor, TensorSpec
from router.stages import Decode, Grayscale, Normalize, Resize, Stage
from router.types import EncodedImage

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/bmp": "BMP"}
"""The media types that can be decoded, and the only decoder that each may reach."""

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
}


def preprocess(image: EncodedImage, spec: ImageSpec, model: ModelSpec) -> dict[str, Tensor]:
    """Runs the stages of `spec` over an image.

    Args:
        image: A file of one of the media types in `FORMATS`.
        spec: The stages, and the input that they make.
        model: The model that the input belongs to.

    Returns:
        The input by name, with the dtype and shape of the model's spec, one row.

    Raises:
        UnprocessableImage: It is no such image, exceeds the declared bounds, or does not come out in shape.
    """
    pixels: Image.Image | Tensor = _decode(image, spec.decode)
    for stage in spec.stages[1:]:
        pixels = _apply(stage, pixels)
    wanted = model.inputs[spec.input]
    return {spec.input: _in_shape(np.asarray(pixels), wanted)}


def check_header(image: EncodedImage, spec: ImageSpec) -> None:
    """Looks at the file's header, whoever is going to decode it: cheap, and before anything is sent anywhere.

    Raises:
        UnprocessableImage: It is no image of its type, or has more pixels than the stages accept.
    """
    _open(image, spec.decode).close()


def _open(image: EncodedImage, bounds: Decode) -> Image.Image:
    """Opens the file, which reads its header only, and checks its size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(image.content), formats=(FORMATS[image.media_type],))
    except Exception as error:  # decoders raise whatever the bytes make them raise
        raise UnprocessableImage(
            f"The body is not an image of type {image.media_type} ({type(error).__name__})."
        ) from error
    if opened.width * opened.height > bounds.max_pixels:
        raise UnprocessableImage(
            f"The image has {opened.width} x {opened.height} pixels; this model takes up to {bounds.max_pixels}."
        )
    return opened


def _decode(image: EncodedImage, bounds: Decode) -> Image.Image:
    with _open(image, bounds) as opened:
        try:
            return _eight_bit(opened).convert("RGB")
        except Exception as error:
            raise UnprocessableImage(
                f"The image cannot be decoded ({type(error).__name__}); is it truncated?"
            ) from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """Sixteen bits a pixel as eight: Pillow itself would cut off all that is brighter than 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def _apply(stage: Stage, pixels: Image.Image | Tensor) -> Image.Image | Tensor:
    if isinstance(stage, Normalize):
        return (np.asarray(pixels, dtype=np.float32) - np.float32(stage.mean)) / np.float32(stage.std)
    if not isinstance(pixels, Image.Image):
        raise UnprocessableImage(
            f"Stage {stage.stage} stands behind normalize, which has to be the last; mend the policy file."
        )
    if isinstance(stage, Grayscale):
        return pixels.convert("L")
    assert isinstance(stage, Resize)
    return pixels.resize((stage.width, stage.height), _FILTERS[stage.filter])


def _in_shape(pixels: Tensor, wanted: TensorSpec) -> Tensor:
    """Pixels [H, W] or [H, W, C] as one row: as they are, channels first, or flat, whichever the model declares."""
    shape = tuple(1 if size == -1 else size for size in wanted.shape)
    pixels = pixels.astype(DTYPES[wanted.dtype], copy=False)
    if pixels.ndim == 3 and shape == (1, pixels.shape[2], *pixels.shape[:2]):
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis])
    unambiguous = pixels.ndim == 2 or shape in ((1, *pixels.shape), (1, pixels.size))
    if unambiguous and pixels.size == np.prod(shape):
        return np.ascontiguousarray(pixels.reshape(shape))
    raise UnprocessableImage(
        f"The stages give {list(pixels.shape)}, the model takes {list(wanted.shape)}; "
        "mend the model's stages in the policy file."
    )
