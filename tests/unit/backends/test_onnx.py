"""Where ONNX runs happen: short ones on the event loop, long ones beside it, by measured time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.onnx import OnnxBackend, OnnxOptions, OnnxVariant
from router.errors import BackendRejectedInput, BackendUnavailable
from router.model import ModelSpec, TensorSpec
from router.ports import BackendContext, Call, Servable
from router.types import nbytes
from tests.integration.identity_model import save_identity_model

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
    return Call(payload, nbytes(payload), rows, "r1", {})


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


async def test_text_reaches_the_model_as_text(tmp_path: Path) -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "texts", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "texts.onnx")
    spec = ModelSpec("texts", "1", {"x": TensorSpec("string", (-1,))}, {"y": TensorSpec("string", (-1,))})
    backend = OnnxBackend(OnnxOptions(), BackendContext(tmp_path))
    servable = await backend.open(spec, OnnxVariant("texts.onnx"))

    async def echoed(*texts: bytes) -> list[str]:
        payload = {"x": np.array(texts, dtype=object)}
        reply = await servable.infer(Call(payload, nbytes(payload), len(texts), "r1", {}), time.monotonic() + 60)
        answer: list[str] = reply.outputs["y"].tolist()
        return answer

    try:
        assert await echoed(b"", "caf\u00e9".encode()) == ["", "caf\u00e9"]
        with pytest.raises(BackendRejectedInput, match="UTF-8"):
            await echoed(b"\xff")
    finally:
        await backend.close()


async def test_text_beside_bfloat16_is_refused_in_words(tmp_path: Path) -> None:
    save_identity_model(tmp_path / "both.onnx", ("bfloat16", "string"))
    tensors = {dtype: TensorSpec(dtype, (-1, 2)) for dtype in ("bfloat16", "string")}
    outputs = {f"{dtype}_out": spec for dtype, spec in tensors.items()}
    backend = OnnxBackend(OnnxOptions(), BackendContext(tmp_path))
    with pytest.raises(BackendUnavailable, match="bfloat16 tensors and takes text"):
        await backend.open(ModelSpec("both", "1", tensors, outputs), OnnxVariant("both.onnx"))
    await backend.close()
