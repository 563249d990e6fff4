"""Moments too short to be met by chance: a place in the queue is granted as its caller gives up, and the like."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.hailo_errors import translated
from backends.hailo_pipeline import Pipeline, Times
from router.errors import BackendError, BackendFailed, BackendTimeout


class Configured:
    """HailoRT's configured model, as a test drives it: jobs end when it says so."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Callable[[Exception | None], None]] = asyncio.Queue()
        self.not_ready: Exception | None = None
        self.left = False
        self._loop = asyncio.get_running_loop()

    def wait_for_async_ready(self, timeout_ms: int, frames_count: int) -> None:
        if self.not_ready is not None:
            raise self.not_ready

    def run_async(self, bindings: list[Any], callback: Callable[..., None]) -> None:
        def end(error: Exception | None) -> None:
            callback(completion_info=SimpleNamespace(exception=error))

        self._loop.call_soon_threadsafe(self.begun.put_nowait, end)

    async def job(self) -> Callable[[Exception | None], None]:
        """The next job that was begun; call it to end the job."""
        async with asyncio.timeout(10):
            return await self.begun.get()

    def __exit__(self, *exit: object) -> None:
        self.left = True


class Binding:
    """Takes any buffer."""

    def input(self, name: str) -> Binding:
        return self

    def output(self, name: str) -> Binding:
        return self

    def set_buffer(self, buffer: object) -> None:
        pass


@pytest.fixture
async def configured() -> Configured:
    return Configured()


@pytest.fixture
async def pipeline(configured: Configured) -> AsyncIterator[Pipeline]:
    """With room for two frames."""
    made = Pipeline(configured, [Binding(), Binding()], lambda error: translated(error, "m.hef"))
    yield made
    while not configured.begun.empty():
        configured.begun.get_nowait()(None)
    await made.close()
    assert configured.left


def run(pipeline: Pipeline, rows: int = 2, seconds: float = 10.0) -> asyncio.Task[Times]:
    frames = {"s": np.zeros((rows, 1), np.float32)}
    return asyncio.create_task(pipeline.run(frames, frames, time.monotonic() + seconds, None))


async def test_a_place_that_is_granted_as_its_caller_gives_up_goes_to_the_next(
    pipeline: Pipeline, configured: Configured
) -> None:
    first = run(pipeline)
    end = await configured.job()
    second = run(pipeline)
    await asyncio.sleep(0)
    end(None)
    asyncio.get_running_loop().call_soon(second.cancel)
    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    third = run(pipeline)
    (await configured.job())(None)
    await third


async def test_who_needs_less_goes_on_when_who_stood_before_gives_up(
    pipeline: Pipeline, configured: Configured
) -> None:
    first = run(pipeline, rows=1)
    end = await configured.job()
    large, small = run(pipeline, rows=2), run(pipeline, rows=1)
    await asyncio.sleep(0)
    assert configured.begun.empty(), "nobody overtakes"
    large.cancel()
    (await configured.job())(None)
    await small
    end(None)
    await first


async def test_a_job_that_ends_twice_gives_its_place_back_once(pipeline: Pipeline, configured: Configured) -> None:
    first = run(pipeline)
    end = await configured.job()
    end(None)
    end(None)
    await first
    second, third = run(pipeline), run(pipeline)
    end = await configured.job()
    assert configured.begun.empty()
    end(None)
    (await configured.job())(None)
    await asyncio.gather(second, third)


async def test_a_queue_that_stays_full_is_a_timeout_and_breaks_nothing(
    pipeline: Pipeline, configured: Configured
) -> None:
    configured.not_ready = type("HailoRTTimeout", (Exception,), {})("HAILO_TIMEOUT")
    with pytest.raises(BackendTimeout):
        await run(pipeline)
    assert pipeline.broken is None
    configured.not_ready = None
    second = run(pipeline)
    (await configured.job())(None)
    await second


async def test_after_a_failure_nothing_is_begun_and_all_are_told(pipeline: Pipeline, configured: Configured) -> None:
    running, waiting = run(pipeline), run(pipeline)
    (await configured.job())(ValueError("no good"))
    for task in (running, waiting):
        with pytest.raises(BackendFailed, match="no good"):
            await task
    with pytest.raises(BackendError):
        await run(pipeline)
    with pytest.raises(BackendError):
        await pipeline.in_thread(int)
    assert configured.begun.empty()


async def test_a_deadline_that_has_passed_is_not_even_asked(pipeline: Pipeline, configured: Configured) -> None:
    with pytest.raises(BackendTimeout, match="not asked"):
        await run(pipeline, seconds=-1.0)
    assert configured.begun.empty()


async def test_hours_with_a_hanging_job_are_counted_from_its_begin(pipeline: Pipeline, configured: Configured) -> None:
    assert pipeline.stuck_for(time.monotonic()) == 0
    task = run(pipeline)
    end = await configured.job()
    assert pipeline.stuck_for(time.monotonic() + 3600) >= 3600 - 60
    end(None)
    await task
    assert pipeline.stuck_for(time.monotonic() + 3600) == 0


async def test_an_answer_after_the_loop_has_closed_harms_nobody() -> None:
    def in_a_loop_of_its_own() -> Callable[[Exception | None], None]:
        async def begin() -> Callable[[Exception | None], None]:
            configured = Configured()
            made = Pipeline(configured, [Binding()], lambda error: translated(error, "m.hef"))
            task = run(made, rows=1)
            end = await configured.job()
            task.cancel()
            made._thread.shutdown()
            return end

        return asyncio.run(begin())

    end = await asyncio.to_thread(in_a_loop_of_its_own)
    end(None)
