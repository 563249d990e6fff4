"""Pictures on their way to the HAT: channels first in the policy file, height first on the chip, floats or bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.hailo import HailoBackend, HailoOptions, HailoVariant
from backends.hailo_streams import HailoTensor
from router.model import ModelSpec, TensorSpec
from router.ports import BackendContext
from tests.contract.backends import call
from tests.hat import standin

SHAPE = (3, 40, 50)
SPEC = ModelSpec(
    "colours", "1", {"image": TensorSpec("float32", (-1, *SHAPE))}, {"scores": TensorSpec("float32", (-1, 4))}
)


def save_model(file: Path) -> None:
    """Weighs every pixel of every channel differently, so that a wrong layout gives wrong scores."""
    weights = np.random.default_rng(3).normal(size=(3 * 40 * 50, 4)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["scores"])]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the model, and its `.hef`, whose input counts from 0 to 255 for 0 to 1."""
    save_model(tmp_path / "colours.onnx")
    with standin() as module:
        image: dict[str, Any] = module.picture("c/in", (40, 50, 3), scale=1 / 255, onnx_shape=SHAPE)
        outputs = {"scores": module.vector("c/out", 4, scale=0.05, zero_point=32768)}
        module.write_hef(tmp_path / "colours.hef", tmp_path / "colours.onnx", {"image": image}, outputs)
        yield tmp_path


@pytest.mark.parametrize(
    ("image", "scores", "tolerance"),
    [
        (HailoTensor(layout="nchw"), HailoTensor(), 1e-2),
        (HailoTensor(layout="nchw", format="uint8"), HailoTensor(), 1e-2),
        (HailoTensor(layout="nchw", format="uint8", scale=1 / 255, zero_point=0), HailoTensor(format="uint16"), 0.03),
    ],
    ids=["floats", "bytes", "bytes both ways"],
)
async def test_the_answers_are_those_of_the_model(
    folder: Path, image: HailoTensor, scores: HailoTensor, tolerance: float
) -> None:
    pictures = np.random.default_rng(4).integers(0, 256, (11, *SHAPE)).astype(np.float32) / 255
    session = ort.InferenceSession(str(folder / "colours.onnx"), providers=["CPUExecutionProvider"])
    (right,) = session.run(["scores"], {"image": pictures})
    backend = HailoBackend(HailoOptions(), BackendContext(folder))
    servable = await backend.open(SPEC, HailoVariant("colours.hef", {"image": image}, {"scores": scores}))
    reply = await servable.infer(call({"image": pictures}), time.monotonic() + 20)
    await servable.close()
    await backend.close()
    assert np.abs(right).max() > 10
    np.testing.assert_allclose(reply.outputs["scores"], right, atol=tolerance)
