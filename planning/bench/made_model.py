"""Makes a vision classifier of a stated size, to measure with where there is no model yet.

Its weights are not trained: what it answers means nothing, and what it costs to run is that of any other network of
its shape, a MobileNet (Howard et al. 2017) whose width is chosen for its size. Needs the package onnx.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NOTE = "Untrained weights: its times and its size are those of a real model of this shape, its answers mean nothing."
IMAGE, PROBABILITIES = "image", "probabilities"
CLASSES = 1000
OPSET = 17
IR_VERSION = 8

STEM = 32
LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *([(512, 1)] * 5), (1024, 2), (1024, 1))
"""Channels, at a width of 1, and stride of each pair of a depthwise and a pointwise convolution."""

BYTES_PER_WEIGHT = 4
MULTIPLE = 8
"""Channels come in eights, as vector units like them."""

WIDEST = 8.0


def make_model(file: Path, size_mb: float, side: int, seed: int) -> None:
    """Writes it.

    Args:
        file: Where to; `image` float32 [-1, 3, side, side] goes in, `probabilities` float32 [-1, 1000] come out.
        size_mb: Size of its weights in megabytes, which is met within a few per cent.
        side: Height and width of the image.
        seed: Of the weights.
    """
    channels = _channels(size_mb)
    made = _Graph(np.random.default_rng(seed))
    tensor = made.convolution(IMAGE, 3, channels[0], 3, 2)
    for (before, after), (_, stride) in zip(pairwise(channels), LAYERS, strict=True):
        tensor = made.convolution(tensor, before, before, 3, stride, groups=before)
        tensor = made.convolution(tensor, before, after, 1, 1)
    pooled = made.node("GlobalAveragePool", [tensor])
    flat = made.node("Flatten", [pooled], axis=1)
    scores = made.node("Gemm", [flat, made.weights(channels[-1], CLASSES), made.weights(CLASSES)])
    made.nodes.append(helper.make_node("Softmax", [scores], [PROBABILITIES], axis=1))
    graph = helper.make_graph(
        made.nodes,
        "vision",
        [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, ["rows", 3, side, side])],
        [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["rows", CLASSES])],
        initializer=made.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hybrid-router")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """A graph while it is put together."""

    def __init__(self, randomness: np.random.Generator) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._random = randomness

    def weights(self, *shape: int) -> str:
        """Random weights of such a scale that what passes through keeps its magnitude; returns their name."""
        inputs = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        values: NDArray[np.float32] = self._random.standard_normal(shape, np.float32) * np.float32((2 / inputs) ** 0.5)
        name = f"weights{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Adds a node; returns the name of what comes out of it."""
        name = f"tensor{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def convolution(self, tensor: str, before: int, after: int, side: int, stride: int, groups: int = 1) -> str:
        """Adds a convolution and its rectifier; returns the name of what comes out."""
        weights = self.weights(after, before // groups, side, side)
        bias = self.weights(after)
        padding = side // 2
        convolved = self.node(
            "Conv",
            [tensor, weights, bias],
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[padding] * 4,
            group=groups,
        )
        return self.node("Relu", [convolved])


def _channels(size_mb: float) -> list[int]:
    """Channels after the stem and after each layer, for weights of about this size."""
    low, high = 0.0, WIDEST
    for _ in range(40):  # far more than the eights need
        width = (low + high) / 2
        low, high = (width, high) if _bytes(_at_width(width)) < size_mb * 1e6 else (low, width)
    return _at_width(high)


def _at_width(width: float) -> list[int]:
    wide = (STEM, *(channels for channels, _ in LAYERS))
    return [max(MULTIPLE, round(channels * width / MULTIPLE) * MULTIPLE) for channels in wide]


def _bytes(channels: list[int]) -> int:
    weights = channels[0] * (3 * 9 + 1) + channels[-1] * CLASSES + CLASSES
    for before, after in pairwise(channels):
        weights += before * (9 + 1) + after * (before + 1)
    return weights * BYTES_PER_WEIGHT
