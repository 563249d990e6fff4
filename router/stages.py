"""The image stages that a model can declare: values only; `backends.image` runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Decode:
    """Reads the image file.

    Args:
        max_pixels: Larger images are refused before they are decoded.
    """

    stage: Literal["decode"] = "decode"
    max_pixels: int = 16_000_000

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, not {self.max_pixels}")


@dataclass(frozen=True, slots=True)
class Grayscale:
    """Keeps luma only (ITU-R 601-2), one channel."""

    stage: Literal["grayscale"] = "grayscale"


@dataclass(frozen=True, slots=True)
class Resize:
    """Scales to a size in pixels.

    Args:
        width: New width.
        height: New height.
        filter: `box` averages what falls into a pixel; `bilinear` interpolates; `nearest` picks.
    """

    width: int
    height: int
    filter: Literal["nearest", "box", "bilinear"] = "bilinear"
    stage: Literal["resize"] = "resize"

    def __post_init__(self) -> None:
        if not (1 <= self.width <= 8192 and 1 <= self.height <= 8192):
            raise ValueError("width and height must be between 1 and 8192")


@dataclass(frozen=True, slots=True)
class Normalize:
    """Turns pixel values v of 0 to 255 into (v - mean) / std, and so into floating point.

    Args:
        mean: Subtracted first.
        std: Divided by.
    """

    mean: float
    std: float
    stage: Literal["normalize"] = "normalize"

    def __post_init__(self) -> None:
        if self.std == 0:
            raise ValueError("std cannot be 0")


Stage = Decode | Grayscale | Resize | Normalize
