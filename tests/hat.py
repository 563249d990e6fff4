"""The stand-in for HailoRT, put on the path and taken off again, and `.hef` files of the sample models for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backends.hailo import HailoVariant
from backends.hailo_streams import HailoTensor

ROOT = Path(__file__).parents[1]
STANDINS = ROOT / "tests/standins"
MODELS_DIR = ROOT / "deploy/models"


@contextmanager
def standin() -> Iterator[Any]:
    """The module `hailo_platform.standin`, with a chip of its own; HailoRT can be imported meanwhile."""
    with installed():
        yield importlib.import_module("hailo_platform.standin")


@contextmanager
def installed() -> Iterator[None]:
    """HailoRT's package is on the path, whole or not."""
    _forget()
    sys.path.insert(0, str(STANDINS))
    try:
        yield
    finally:
        sys.path.remove(str(STANDINS))
        _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "hailo_platform"]:
        del sys.modules[name]


def write_samples(module: Any, folder: Path) -> Mapping[str, HailoVariant]:
    """Writes the sample models as stand-in `.hef` files: the digits as a vector, `embed` as an image.

    Returns:
        The variant of each model, by the model's name.
    """
    flat = HailoTensor(layout="flat")
    module.write_hef(
        folder / "digits.hef",
        MODELS_DIR / "digits-edge.onnx",
        {"pixels": module.vector("digits/input_layer1", 64)},
        {"label": module.vector("digits/argmax1", 1), "probabilities": module.vector("digits/softmax1", 10)},
    )
    module.write_hef(
        folder / "embed.hef",
        MODELS_DIR / "embed-edge.onnx",
        {"image": module.picture("embed/input_layer1", (8, 8, 1), onnx_shape=[8, 8])},
        {"embedding": module.vector("embed/fc2", 16)},
    )
    outputs = {
        "label": HailoTensor(stream="digits/argmax1", layout="flat"),
        "probabilities": HailoTensor(stream="digits/softmax1"),
    }
    return {
        "digits": HailoVariant("digits.hef", outputs=outputs),
        "embed": HailoVariant("embed.hef", inputs={"image": flat}),
    }
