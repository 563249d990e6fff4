"""ONNX models on the event loop for several requests at once: when that is done, and whose rows are whose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from backends.onnx import INLINE_BELOW_S, SHARED_BESIDE_ABOVE_S, OnnxBackend, OnnxOptions, OnnxServable, OnnxVariant
from backends.versions import Versions
from router.errors import BackendError, BackendRejectedInput, BackendTimeout
from router.model import ModelSpec, Tensor, TensorSpec
from router.ports import BackendContext, Call, RunsInline
from router.types import Reply, nbytes

TABLE = 100
SPEC = ModelSpec("table", "1", {"at": TensorSpec("int64", (-1, -1))}, {"y": TensorSpec("int64", (-1, -1))})
QUICK, SLOW = SHARED_BESIDE_ABOVE_S / 2, INLINE_BELOW_S
BETWEEN = (SHARED_BESIDE_ABOVE_S + INLINE_BELOW_S) / 2


def save_table(file: Path) -> None:
    """Looks numbers up in a table of squares; a place beyond its end is bad."""
    squares = helper.make_tensor("squares", TensorProto.INT64, [TABLE], [place * place for place in range(TABLE)])
    tensors = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "m"]) for name in ("at", "y")]
    node = helper.make_node("Gather", ["squares", "at"], ["y"], axis=0)
    graph = helper.make_graph([node], "table", tensors[:1], tensors[1:], [squares])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the model."""
    folder = tmp_path_factory.mktemp("models")
    save_table(folder / "table.onnx")
    return folder


@asynccontextmanager
async def opened(
    models: Path, expected_s: float = QUICK, rows: int = 16, size: int = 1 << 20
) -> AsyncIterator[Versions[OnnxServable]]:
    """The model, a run of which is expected to take so long whatever its size."""
    backend = OnnxBackend(OnnxOptions(max_batch_rows=rows, max_batch_bytes=size), BackendContext(models))
    servable = await backend.open(SPEC, OnnxVariant("table.onnx"))
    servable.in_force._expected_s.update(dict.fromkeys(range(32), expected_s))
    yield servable
    await servable.close()
    await backend.close()


def call(*rows: Sequence[int]) -> Call:
    """A request for these places."""
    payload: dict[str, Tensor] = {"at": np.array(rows, np.int64)}
    return Call(payload, nbytes(payload), len(rows), "r1", {})


def ran(servable: object, *calls: Call, deadlines: Sequence[float] = ()) -> Sequence[Reply | BackendError]:
    """What became of each, with a minute's time where nothing else is given."""
    assert isinstance(servable, RunsInline)
    return servable.infer_inline(calls, deadlines or [time.monotonic() + 60] * len(calls))


def runs_inline(servable: object, calls: int, payload_bytes: int = 8) -> int:
    """How many at a time."""
    assert isinstance(servable, RunsInline)
    return servable.runs_inline(calls, payload_bytes)


def told(answers: Sequence[Reply | BackendError]) -> list[object]:
    """The rows of each, or the kind of its error."""
    return [answer.outputs["y"].tolist() if isinstance(answer, Reply) else type(answer) for answer in answers]


@pytest.mark.parametrize("rows", [1, 16])
async def test_everybody_gets_their_own_rows(models: Path, rows: int) -> None:
    async with opened(models, rows=rows) as servable:
        answers = ran(servable, call([1], [2]), call([3]), call([4], [5], [6]))
    assert told(answers) == [[[1], [4]], [[9]], [[16], [25], [36]]]


async def test_those_that_share_a_run_took_the_same_time_and_those_that_do_not_wait_for_each_other(
    models: Path,
) -> None:
    async with opened(models) as servable:
        together = ran(servable, call([1]), call([2]), call([3]))
    async with opened(models, rows=1) as servable:
        apart = ran(servable, call([1]), call([2]), call([3]))
    assert len({one.compute_s for one in together if isinstance(one, Reply)}) == 1
    assert len({one.queue_s for one in together if isinstance(one, Reply)}) == 1
    waited = [one.queue_s for one in apart if isinstance(one, Reply)]
    assert waited == sorted(waited)
    assert waited[0] < waited[-1]


@pytest.mark.parametrize(("rows", "size"), [(2, 1 << 20), (16, 16)])
async def test_no_run_is_larger_than_it_may_be(models: Path, rows: int, size: int) -> None:
    sizes: list[int] = []
    async with opened(models, rows=rows, size=size) as servable:
        version = servable.in_force
        run = version._run

        def noted(inputs: dict[str, Tensor], size: int, stop: object) -> object:
            sizes.append(size)
            return run(inputs, size, stop)

        version._run = noted  # type: ignore[assignment]
        assert told(ran(servable, *(call([place]) for place in range(5)))) == [[[place**2]] for place in range(5)]
    assert sizes == [16, 16, 8]


async def test_a_bad_one_fails_alone_and_as_it_would_the_ordinary_way(models: Path) -> None:
    async with opened(models) as servable:
        answers = ran(servable, call([1]), call([TABLE]), call([3]))
        with pytest.raises(BackendRejectedInput) as caught:
            await servable.infer(call([TABLE]), time.monotonic() + 60)
    assert told(answers) == [[[1]], BackendRejectedInput, [[9]]]
    assert isinstance(answers[1], BackendRejectedInput)
    assert answers[1].detail == caught.value.detail


async def test_whoever_is_too_late_is_not_run(models: Path) -> None:
    async with opened(models) as servable:
        now = time.monotonic()
        answers = ran(servable, call([1]), call([2]), call([3]), deadlines=[now + 60, now, now + 60])
    assert told(answers) == [[[1]], BackendTimeout, [[9]]]


async def test_other_shapes_are_runs_of_their_own(models: Path) -> None:
    async with opened(models) as servable:
        one, wide, two = ran(servable, call([1]), call([2, 3]), call([4]))
    assert told([one, wide, two]) == [[[1]], [[4, 9]], [[16]]]
    assert isinstance(one, Reply)
    assert isinstance(two, Reply)
    assert isinstance(wide, Reply)
    assert (one.queue_s, one.compute_s) == (two.queue_s, two.compute_s)
    assert wide.queue_s > one.queue_s


@pytest.mark.parametrize(
    ("expected_s", "rows", "calls", "inline"),
    [
        (QUICK, 16, 1, True),
        (QUICK, 16, 32, True),
        (BETWEEN, 16, 1, True),
        (BETWEEN, 16, 2, False),
        (SLOW, 16, 1, False),
        (INLINE_BELOW_S / 4.5, 1, 4, True),
        (INLINE_BELOW_S / 4.5, 1, 5, False),
        (SLOW, 1, 1, False),
    ],
)
async def test_it_runs_on_the_loop_only_where_that_holds_nobody_up(
    models: Path, expected_s: float, rows: int, calls: int, inline: bool
) -> None:
    async with opened(models, expected_s, rows) as servable:
        assert runs_inline(servable, calls) == (rows if inline else 0)


async def test_what_nobody_has_seen_before_may_be_slow(models: Path) -> None:
    async with opened(models) as servable:
        assert not runs_inline(servable, 1, 1 << 40)
        servable.in_force._expected_s[13] = SLOW
        assert runs_inline(servable, 1, (1 << 12) - 1)
        assert not runs_inline(servable, 1, 1 << 12)


async def test_nothing_is_run_beside_what_a_thread_runs(models: Path) -> None:
    async with opened(models) as servable:
        sharing = servable.in_force._sharing
        assert sharing is not None
        x: dict[str, Tensor] = {"at": np.array([[7]])}
        running = asyncio.create_task(sharing.beside.infer(x, 1, 8, time.monotonic() + 60))
        assert runs_inline(servable, 1)
        await asyncio.sleep(0)
        assert not runs_inline(servable, 1), "its answer has not been taken in before a turn of the loop"
        assert (await running).outputs["y"].tolist() == [[49]]
        assert runs_inline(servable, 1)


async def test_the_version_that_takes_over_is_the_one_that_runs(models: Path) -> None:
    async with opened(models) as servable:
        other = OnnxBackend(OnnxOptions(), BackendContext(models))
        slow = (await other.open(SPEC, OnnxVariant("table.onnx"))).in_force
        slow._expected_s.update(dict.fromkeys(range(32), SLOW))
        assert runs_inline(servable, 1)
        servable.in_force = slow
        assert not runs_inline(servable, 1)
        assert told(ran(servable, call([9]))) == [[[81]]]
        await other.close()
