"""Batches on the event loop: who comes alone runs at once, who comes with others shares their run."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.batch import Bounds, Stop
from backends.turn_batcher import TurnBatcher
from router.errors import BackendError, BackendFailed, BackendTimeout
from router.model import Tensor, Tensors
from router.types import Reply
from tests.unit.backends.doubling import BAD, Model, Visit, rows_of, tensor_of, visits
from tests.unit.virtual_time import START, in_virtual_time, virtual_loop


def batcher(model: Model, rows: int = 8) -> TurnBatcher:
    return TurnBatcher(model, Bounds(rows, 1 << 20), virtual_loop().time)


def asking(to: TurnBatcher, values: list[float], width: int = 2, deadline: float = START + 1e6) -> asyncio.Task[Reply]:
    x = tensor_of(values, width)
    return asyncio.create_task(to.infer({"x": x}, len(x), x.nbytes, deadline))


@in_virtual_time
async def test_who_comes_alone_is_told_to_run_at_once_turn_after_turn() -> None:
    to = batcher(Model())
    for _ in range(3):
        assert to.alone()
        await asyncio.sleep(0)


@in_virtual_time
async def test_who_comes_second_in_a_turn_is_not_alone_nor_is_the_first_of_the_turn_after_a_crowd() -> None:
    model = Model()
    to = batcher(model)
    assert to.alone()
    assert not to.alone()
    await asyncio.gather(*(asking(to, [value]) for value in (1.0, 2.0, 3.0)))
    assert model.runs == [[1.0, 2.0, 3.0]]
    assert not to.alone()
    assert rows_of(await asking(to, [4.0])) == [8.0]
    assert to.alone()


@in_virtual_time
async def test_a_bad_request_and_one_that_left_harm_nobody_else() -> None:
    to = batcher(Model())
    good, bad, leaver, late = asking(to, [1.0]), asking(to, [BAD]), asking(to, [2.0]), asking(to, [3.0], deadline=START)
    asyncio.get_running_loop().call_soon(leaver.cancel)
    await asyncio.wait((good, bad, leaver, late))
    assert rows_of(good.result()) == [2.0]
    with pytest.raises(BackendFailed):
        bad.result()
    with pytest.raises(BackendTimeout):
        late.result()
    assert leaver.cancelled()


@in_virtual_time
async def test_an_error_that_nobody_foresaw_reaches_whoever_waits() -> None:
    def odd(inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
        raise ZeroDivisionError

    to = TurnBatcher(odd, Bounds(8, 1 << 20), virtual_loop().time)
    for task in (asking(to, [1.0]), asking(to, [2.0])):
        with pytest.raises(BackendFailed):
            await task


@given(st.lists(visits, max_size=20), st.integers(1, 12))
def test_everybody_gets_their_own_rows_or_their_own_error_in_the_turn_they_came_in(
    coming: list[Visit], rows: int
) -> None:
    @in_virtual_time
    async def test() -> None:
        model = Model()
        to = batcher(model, rows)
        asked = []
        for visit in coming:
            if visit.pause:
                await asyncio.sleep(visit.pause)
            asked.append(asking(to, visit.values, visit.width))
            if visit.leaves_after is not None:
                asyncio.get_running_loop().call_soon(asked[-1].cancel)
        before = virtual_loop().time()
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert virtual_loop().time() == before
        for visit, end in zip(coming, ended, strict=True):
            if isinstance(end, asyncio.CancelledError):
                assert visit.leaves_after is not None
            elif isinstance(end, BackendError):
                assert BAD in visit.values
            else:
                assert isinstance(end, Reply)
                np.testing.assert_array_equal(end.outputs["y"], tensor_of(visit.values, visit.width) * 2)
        assert all(len(run) <= max(rows, 5) for run in model.runs)
        assert len(asyncio.all_tasks()) == 1

    test()
