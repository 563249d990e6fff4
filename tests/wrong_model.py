"""A model that is of the right form, and wrong."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper

from tests.gateway_process import ROOT


def wrong_model(path: Path) -> None:
    """Writes the edge model with the signs of its last weights turned."""
    model = onnx.load(ROOT / "deploy/models/digits-edge.onnx")
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights_1")
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    onnx.save(model, path)
