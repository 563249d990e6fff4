"""Batching in virtual time: whoever comes, leaves or is bad, everybody gets their own rows or their own error."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.batch import Bounds, Stop
from backends.batcher import Batcher
from router.errors import BackendError, BackendFailed, BackendTimeout, BackendUnavailable
from router.model import Tensor, Tensors
from router.types import Reply
from tests.unit.backends.doubling import BAD, RUN_S, Flag, Model, Visit, rows_of, tensor_of, visits
from tests.unit.virtual_time import START, VirtualTimeLoop, in_virtual_time, virtual_loop

LATE = START + 1e6


def batcher(model: Model, rows: int = 8, size: int = 1 << 20) -> Batcher:
    """A batcher in this virtual loop, each of whose jobs takes `RUN_S`."""
    virtual_loop().thread_seconds = RUN_S
    threads = ThreadPoolExecutor(1)  # never used: the virtual loop runs what goes to a thread
    return Batcher(model, Flag, threads, Bounds(rows, size), virtual_loop().time)


def asking(
    to: Batcher, *values: float, width: int = 2, dtype: type = np.float32, deadline: float = LATE
) -> asyncio.Task[Reply]:
    """A request with a row for each value."""
    x = tensor_of(list(values), width, dtype)
    return asyncio.create_task(to.infer({"x": x}, len(x), x.nbytes, deadline))


@in_virtual_time
async def test_a_lone_request_runs_at_once() -> None:
    model = Model()
    reply = await asking(batcher(model), 1, 2)
    assert (rows_of(reply), reply.queue_s, reply.compute_s) == ([2, 4], RUN_S, RUN_S)  # a virtual thread runs late
    assert virtual_loop().time() == START + RUN_S


@in_virtual_time
async def test_what_queued_while_a_run_was_under_way_is_the_next_one() -> None:
    model = Model()
    to = batcher(model)
    replies = await asyncio.gather(*(asking(to, value) for value in range(6)))
    assert [rows_of(reply) for reply in replies] == [[0], [2], [4], [6], [8], [10]]
    assert model.runs == [[0], [1, 2, 3, 4, 5]]
    assert [reply.queue_s for reply in replies[1:]] == [2 * RUN_S] * 5
    assert virtual_loop().time() == START + 2 * RUN_S


@in_virtual_time
async def test_a_cancelled_member_leaves_its_peers_their_answers() -> None:
    """MLServer 1.6 leaves the peer of a cancelled caller waiting for ever."""
    model = Model()
    to = batcher(model)
    first = asking(to, 1)
    await asyncio.sleep(RUN_S / 2)
    peers = [asking(to, value) for value in (2, 3, 4)]
    await asyncio.sleep(RUN_S)  # their run is under way
    peers[1].cancel()
    assert rows_of(await first) == [2]
    assert [rows_of(await peer) for peer in (peers[0], peers[2])] == [[4], [8]]
    assert peers[1].cancelled()
    assert not model.stopped
    assert to.idle


@in_virtual_time
async def test_a_run_that_nobody_waits_for_is_stopped_and_the_next_one_goes_on() -> None:
    model = Model()
    to = batcher(model)
    leaving = asking(to, 1)
    await asyncio.sleep(RUN_S / 2)
    staying = asking(to, 2)
    leaving.cancel()
    assert rows_of(await staying) == [4]
    assert model.runs == [[2]], "it was given up before the thread came to it"


@in_virtual_time
async def test_what_was_given_up_while_it_queued_is_not_run() -> None:
    model = Model()
    to = batcher(model)
    first, leaving, staying = asking(to, 1), asking(to, 2), asking(to, 3)
    await asyncio.sleep(RUN_S / 2)
    leaving.cancel()
    await asyncio.gather(first, staying)
    assert model.runs == [[1], [3]]


@in_virtual_time
async def test_a_bad_request_fails_alone() -> None:
    model = Model()
    to = batcher(model)
    ended = await asyncio.gather(*(asking(to, value) for value in (0, 1, BAD, 2)), return_exceptions=True)
    assert isinstance(ended[2], BackendFailed)
    assert [rows_of(end) for end in ended if isinstance(end, Reply)] == [[0], [2], [4]]
    assert model.runs == [[0], [1, BAD, 2], [1], [BAD], [2]]


@in_virtual_time
async def test_a_deadline_that_passes_in_the_queue_is_not_run() -> None:
    model = Model()
    to = batcher(model)
    first, late, patient = asking(to, 1), asking(to, 2, deadline=START + RUN_S / 2), asking(to, 3)
    await asyncio.gather(first, patient)
    with pytest.raises(BackendTimeout):
        await late
    assert model.runs == [[1], [3]]


@in_virtual_time
async def test_only_what_agrees_in_shape_and_type_shares_a_run() -> None:
    model = Model()
    to = batcher(model)
    await asyncio.gather(
        asking(to, 0), asking(to, 1), asking(to, 2, width=3), asking(to, 3), asking(to, 4, dtype=np.float64)
    )
    assert model.runs == [[0], [1, 3], [2], [4]]


@pytest.mark.parametrize(("rows", "size"), [(4, 1 << 20), (1 << 10, 4 * 8)])
def test_rows_and_bytes_are_bounded(rows: int, size: int) -> None:
    @in_virtual_time
    async def test() -> None:
        model = Model()
        to = batcher(model, rows, size)
        await asyncio.gather(asking(to, 0), asking(to, *range(6)), asking(to, 1, 2), asking(to, 3, 4), asking(to, 5))
        assert model.runs == [[0], [0, 1, 2, 3, 4, 5], [1, 2, 3, 4], [5]]

    test()


@in_virtual_time
async def test_a_model_that_does_not_keep_to_its_rows_is_run_one_by_one() -> None:
    class Mean(Model):
        def __call__(self, inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
            super().__call__(inputs, size, stop)
            return {"y": inputs["x"].mean(axis=0, keepdims=True)}, RUN_S

    to = batcher(Mean())
    replies = await asyncio.gather(*(asking(to, value) for value in (1, 2, 3)))
    assert [rows_of(reply) for reply in replies] == [[1], [2], [3]]


@in_virtual_time
async def test_an_error_that_nobody_foresaw_is_one_of_ours_and_the_next_run_goes_on() -> None:
    class Odd(Model):
        def __call__(self, inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
            if (inputs["x"] == BAD).any():
                raise ZeroDivisionError
            return super().__call__(inputs, size, stop)

    to = batcher(Odd())
    odd, fine = asking(to, BAD), asking(to, 1)
    with pytest.raises(BackendFailed):
        await odd
    assert rows_of(await fine) == [2]
    assert to.idle


async def test_threads_that_went_away_are_an_error_for_whoever_waits_and_for_whoever_comes() -> None:
    with ThreadPoolExecutor(1) as threads:
        holding = threading.Event()
        threads.submit(holding.wait)
        to = Batcher(Model(), Flag, threads, Bounds(8, 1 << 20), asyncio.get_running_loop().time)
        waiting = [asking(to, 1), asking(to, 2)]
        await asyncio.sleep(0)
        threads.shutdown(wait=False, cancel_futures=True)
        holding.set()
    for task in (*waiting, asking(to, 3)):
        with pytest.raises(BackendUnavailable):
            await task
    assert to.idle


@given(st.lists(visits, max_size=20), st.integers(1, 12))
def test_everybody_gets_their_own_rows_or_their_own_error_and_nothing_is_left(coming: list[Visit], rows: int) -> None:
    @in_virtual_time
    async def test() -> None:
        model = Model()
        to = batcher(model, rows)
        asked = []
        for visit in coming:
            await asyncio.sleep(visit.pause)
            task = asking(to, *visit.values, width=visit.width, deadline=virtual_loop().time() + visit.patience)
            if visit.leaves_after is not None:
                virtual_loop().call_later(visit.leaves_after, task.cancel)
            asked.append(task)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        for visit, end in zip(coming, ended, strict=True):
            if isinstance(end, asyncio.CancelledError):
                assert visit.leaves_after is not None
            elif isinstance(end, BackendTimeout):
                assert visit.patience < 1e6
            elif isinstance(end, BackendError):
                assert BAD in visit.values
            else:
                assert isinstance(end, Reply)
                np.testing.assert_array_equal(end.outputs["y"], [[2 * v] * visit.width for v in visit.values])
                assert end.queue_s >= 0
        await asyncio.sleep(RUN_S)  # a run that was given up ends when its thread comes to it
        assert to.idle
        assert all(len(run) <= max(rows, 5) for run in model.runs)
        assert len(asyncio.all_tasks()) == 1

    test()


def test_it_needs_no_timer() -> None:
    """Nothing but arrivals and ends of runs moves it: with threads that never end, the loop has nothing to wake for."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        to = batcher(Model())
        loop.thread_seconds = float("inf")
        asking(to, 1)
        asking(to, 2)
        await asyncio.sleep(0)
        assert not loop._scheduled  # type: ignore[attr-defined]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(test())
