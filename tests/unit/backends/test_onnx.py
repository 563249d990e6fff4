"""Where ONNX runs happen: short ones on the event loop, long ones beside it, by measured time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backends.onnx import OnnxBackend, OnnxOptions, OnnxVariant
from router.model import ModelSpec, TensorSpec
from router.ports import BackendContext, Call, Servable
from router.types import nbytes

WIDTH = 512
SPEC = ModelSpec("wide", "1", {"x": TensorSpec("float32", (-1, WIDTH))}, {"y": TensorSpec("float32", (-1, WIDTH))})


def save_wide_model(file: Path) -> None:
    """A chain of matrix products: next to nothing for a row, much for thousands."""
    weights = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "w"], [f"h{i + 1}"]) for i in range(3)]
    nodes.append(helper.make_node("Relu", ["h3"], ["y"]))
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "wide", tensors[:1], tensors[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


def call(rows: int) -> Call:
    payload = {"x": np.ones((rows, WIDTH), np.float32)}
    return Call(payload, nbytes(payload), "r1", {})


async def others_ran(servable: Servable, rows: int) -> bool:
    """Whether other tasks got a turn while the model ran."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    reply = await servable.infer(call(rows), time.monotonic() + 60)
    others.cancel()
    assert reply.outputs["y"].shape == (rows, WIDTH)
    return turns > 0


async def test_short_runs_happen_on_the_loop_and_long_ones_beside_it(tmp_path: Path) -> None:
    save_wide_model(tmp_path / "wide.onnx")
    backend = OnnxBackend(OnnxOptions(), BackendContext(tmp_path))
    servable = await backend.open(SPEC, OnnxVariant("wide.onnx"))
    try:
        assert await others_ran(servable, 20_000), "a size that was never seen may be long"
        assert await others_ran(servable, 20_000), "and this one is known to be"
        for _ in range(50):
            await servable.infer(call(1), time.monotonic() + 60)
        assert not await others_ran(servable, 1)
    finally:
        await backend.close()
