"""Shared runs with the real ONNX Runtime: models that are slow enough to queue for, made on the spot."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.onnx import OnnxBackend, OnnxOptions, OnnxServable, OnnxVariant
from backends.versions import Versions
from router.errors import BackendRejectedInput, BackendTimeout
from router.model import ModelSpec, Tensor, TensorSpec
from router.ports import BackendContext, Call, Servable
from router.types import Reply, nbytes

WIDTH = 1024
TABLE = 1000
SPEC = ModelSpec(
    "lookup",
    "1",
    {"index": TensorSpec("int64", (-1,)), "rounds": TensorSpec("int64", (-1,))},
    {"y": TensorSpec("float32", (-1, WIDTH))},
)
SLOW, ENDLESS = 60, 1 << 40


def save_lookup(file: Path) -> None:
    """Looks rows up in a table, and multiplies them by a matrix as many times as the greatest of `rounds` says."""
    random = np.random.default_rng(0)
    rows = helper.make_tensor_value_info("seen", TensorProto.FLOAT, ["n", WIDTH])
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["seen", "matrix"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next"]),
            helper.make_node("Identity", ["go_on"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            rows,
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", WIDTH]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "index"], ["found"], axis=0),
            helper.make_node("ReduceMax", ["rounds"], ["most"], keepdims=0),
            helper.make_node("Loop", ["most", "", "found"], ["y"], body=body),
        ],
        "lookup",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in ("index", "rounds")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [
            numpy_helper.from_array(random.standard_normal((TABLE, WIDTH)).astype(np.float32), "table"),
            numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 32, "matrix"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the model."""
    folder = tmp_path_factory.mktemp("models")
    save_lookup(folder / "lookup.onnx")
    return folder


@asynccontextmanager
async def opened(models: Path, rows: int) -> AsyncIterator[Versions[OnnxServable]]:
    """The model, with a bound of so many rows, and known to be slow."""
    backend = OnnxBackend(OnnxOptions(max_batch_rows=rows), BackendContext(models))
    servable = await backend.open(SPEC, OnnxVariant("lookup.onnx"))
    for size in range(12):  # no size of the tests is taken for a quick one
        servable.in_force._expected_s[size] = 1.0
    yield servable
    await servable.close()
    await backend.close()


def asking(servable: Servable, *index: int, rounds: int = SLOW, seconds: float = 60.0) -> asyncio.Task[Reply]:
    """A request for these rows of the table."""
    payload: dict[str, Tensor] = {"index": np.array(index), "rounds": np.full(len(index), rounds)}
    call = Call(payload, nbytes(payload), len(index), "r1", {})
    return asyncio.create_task(servable.infer(call, time.monotonic() + seconds))


async def alone(models: Path, *index: int) -> Tensor:
    """What a backend that does not share runs answers."""
    async with opened(models, 1) as servable:
        return (await asking(servable, *index)).outputs["y"]


async def test_what_shared_a_run_is_what_it_would_be_alone(models: Path) -> None:
    expected = {rows: await alone(models, *rows) for rows in ((1,), (2, 3), (4,), (5, 6, 7))}
    async with opened(models, 16) as servable:
        replies = await asyncio.gather(*(asking(servable, *rows) for rows in expected))
    for (rows, outputs), reply in zip(expected.items(), replies, strict=True):
        assert len(reply.outputs["y"]) == len(rows)
        np.testing.assert_allclose(reply.outputs["y"], outputs, rtol=1e-3, atol=1e-5)
    shared = {reply.compute_s for reply in replies[1:]}
    assert len(shared) == 1, "all but the first were one run"
    assert all(reply.queue_s > replies[0].queue_s for reply in replies[1:]), "they waited for the first run"


async def test_one_bad_row_fails_its_own_request_only(models: Path) -> None:
    expected = await alone(models, 2)
    async with opened(models, 16) as servable:
        ended = await asyncio.gather(*(asking(servable, row) for row in (1, 2, TABLE + 5, 3)), return_exceptions=True)
    assert isinstance(ended[2], BackendRejectedInput)
    assert all(isinstance(ended[at], Reply) for at in (0, 1, 3))
    np.testing.assert_allclose(ended[1].outputs["y"], expected, rtol=1e-3, atol=1e-5)  # type: ignore[union-attr]


async def test_whoever_leaves_takes_nothing_from_the_others(models: Path) -> None:
    async with opened(models, 16) as servable:
        first = asking(servable, 1)
        await asyncio.sleep(0)
        peers = [asking(servable, row) for row in (2, 3, 4)]
        await first
        peers[1].cancel()
        assert isinstance(await peers[0], Reply)
        assert isinstance(await peers[2], Reply)
        assert peers[1].cancelled()


async def test_a_run_that_all_have_left_ends(models: Path) -> None:
    async with opened(models, 16) as servable, asyncio.timeout(60):
        blocking = asking(servable, 1)
        await asyncio.sleep(0)
        leaving = [asking(servable, row, rounds=ENDLESS) for row in (2, 3)]
        await blocking
        await asyncio.sleep(0.05)
        for task in leaving:
            task.cancel()
        assert isinstance(await asking(servable, 4), Reply), "it would wait for ever behind a run without end"


async def test_a_deadline_that_passed_in_the_queue_is_a_timeout(models: Path) -> None:
    async with opened(models, 16) as servable:
        first, late = asking(servable, 1), asking(servable, 2, seconds=0.0)
        with pytest.raises(BackendTimeout):
            await late
        assert isinstance(await first, Reply)


async def test_quick_requests_that_are_ready_together_share_runs_beside_the_loop(models: Path) -> None:
    async with opened(models, 16) as servable:
        for size in range(12):
            servable.in_force._expected_s[size] = 0.0005
        replies = await asyncio.gather(*(asking(servable, row) for row in (1, 2, 3, 4)))
        for size in range(12):
            servable.in_force._expected_s[size] = 0.0005
        lone = await asking(servable, 2)
    assert replies[2].compute_s == replies[3].compute_s
    np.testing.assert_allclose(lone.outputs["y"], replies[1].outputs["y"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 16])
async def test_a_model_that_does_not_give_a_row_for_each_row_shares_no_runs(tmp_path: Path, rows: int) -> None:
    """Its file says that any number of rows comes out, and what comes out is the first."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}_rows", 4]) for name in ("x", "y"))
    first = helper.make_node("Compress", ["x", "condition"], ["y"], axis=0)
    graph = helper.make_graph([first], "first", [x], [y], [numpy_helper.from_array(np.array([True]), "condition")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "first.onnx")
    tensor = TensorSpec("float32", (-1, 4))
    spec = ModelSpec("first", "1", {"x": tensor}, {"y": tensor})
    backend = OnnxBackend(OnnxOptions(max_batch_rows=rows), BackendContext(tmp_path))
    servable = await backend.open(spec, OnnxVariant("first.onnx"))
    servable.in_force._expected_s[5] = 1.0
    payloads: list[dict[str, Tensor]] = [{"x": np.full((1, 4), value, np.float32)} for value in range(4)]
    replies = await asyncio.gather(
        *(servable.infer(Call(payload, 16, 1, "r1", {}), time.monotonic() + 60) for payload in payloads)
    )
    assert [reply.outputs["y"].tolist() for reply in replies] == [payload["x"].tolist() for payload in payloads]
    await backend.close()


@pytest.mark.parametrize("options", [{"max_batch_rows": -1}, {"max_batch_rows": 4097}, {"max_batch_bytes": 0}])
def test_bounds_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be between"):
        OnnxOptions(**options)


async def test_a_version_that_is_replaced_ends_what_it_began(tmp_path: Path) -> None:
    """Runs under way and requests that queue behind them stay with the version that they came to."""
    save_lookup(tmp_path / "lookup.onnx")
    expected = {rows: await alone(tmp_path, *rows) for rows in ((1,), (2, 3), (4,))}
    async with opened(tmp_path, 16) as servable:
        first = servable.in_force
        asked = [asking(servable, *rows) for rows in expected]
        os.utime(tmp_path / "lookup.onnx", ns=(1, 1))
        for _ in range(2):
            await servable.probe(time.monotonic() + 60, synthetic=False)
        assert servable._loading is not None
        await servable._loading
        assert servable.in_force is not first
        later = await asking(servable, 5, rounds=1)
        replies = await asyncio.gather(*asked)
    assert len(later.outputs["y"]) == 1
    for reply, outputs in zip(replies, expected.values(), strict=True):
        np.testing.assert_allclose(reply.outputs["y"], outputs, rtol=1e-3, atol=1e-5)
