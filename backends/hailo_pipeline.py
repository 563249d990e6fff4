"""One configured model on the HAT: frames go in as jobs, and come back from HailoRT's thread to the event loop.

Invariants:
- There are as many bindings as HailoRT's queue has places. Whoever has taken bindings has a place in the queue, so that
  HailoRT never has to say that it is full. They are taken in order of asking, all of a job's at once.
- A job's bindings and buffers belong to it until HailoRT has ended it, whether or not anybody still waits; then the
  bindings go back exactly once.
- After a job failed HailoRT has shut the pipeline down: it is `broken`, everybody who waits is told, and nothing
  more is begun on it. Another one has to be configured in its place.
- Nothing here blocks the event loop: what may block runs in the pipeline's one thread, and HailoRT's callback only
  wakes the loop. It must not raise, for HailoRT ends the process then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from backends.hailo_errors import bare
from router.errors import BackendError, BackendTimeout, BackendUnavailable
from router.model import Tensor

T = TypeVar("T")

log = logging.getLogger(__name__)

DRAIN_S = 5.0
"""How long jobs may take to end when a pipeline is closed. HailoRT waits ten seconds more when it is dropped."""

Frames = Mapping[str, Tensor]
"""Frames by the name of their stream, [rows, ...]."""


@dataclass(eq=False, slots=True)
class Job:
    """Some frames under way.

    Args:
        bindings: One for each frame.
        inputs: What goes in.
        outputs: Where the answers come out.
        asked: When, in monotonic seconds.
        deadline: Monotonic seconds.
        ended: The error that it ended with, or None; set on the event loop.
    """

    bindings: list[Any]
    inputs: Frames
    outputs: Frames
    asked: float
    deadline: float
    ended: asyncio.Future[BackendError | None]
    late: Callable[[float], None] | None = None
    begun_at: float | None = None
    ended_at: float = 0.0
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that a call waited for the queue, and seconds that its last frames took from there."""

    queue_s: float
    compute_s: float


@dataclass(eq=False, slots=True)
class _Waiter:
    frames: int
    granted: asyncio.Future[list[Any] | BackendError] = field(default_factory=lambda: _future())


class Pipeline:
    """A configured infer model.

    Args:
        configured: HailoRT's ConfiguredInferModel.
        bindings: As many bindings as its queue has places.
        translate: Puts an error of HailoRT's in the router's words.
    """

    def __init__(
        self, configured: Any, bindings: list[Any], translate: Callable[[BaseException], BackendError]
    ) -> None:
        self._configured = configured
        self._free = bindings
        self._translate = translate
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hailo-jobs")
        self._waiting: deque[_Waiter] = deque()
        self._under_way: dict[Job, None] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.queue_size = len(bindings)
        self.broken: BaseException | None = None
        self.lost = False

    async def run(
        self, inputs: Frames, outputs: Frames, deadline: float, late: Callable[[float], None] | None
    ) -> Times:
        """Runs all frames, and fills `outputs`; more than the queue takes go as several jobs.

        Args:
            inputs: C-contiguous and writeable, as HailoRT wants them.
            outputs: The same, with as many rows.
            deadline: Monotonic seconds.
            late: Told the seconds that it took if it ends well after it was given up.

        Raises:
            BackendTimeout: It was not done by the deadline.
            BackendError: HailoRT failed.
        """
        asked = time.monotonic()
        if asked >= deadline:
            raise BackendTimeout("The HAT was not asked: the deadline had passed.")
        rows = len(next(iter(inputs.values())))
        jobs: list[Job] = []
        try:
            async with asyncio.timeout(deadline - asked):
                for at in range(0, rows, self.queue_size):
                    part = slice(at, min(at + self.queue_size, rows))
                    bindings = await self._take(part.stop - part.start)
                    job = Job(bindings, _part(inputs, part), _part(outputs, part), asked, deadline, _future())
                    job.late = late if part.stop == rows else None  # the last one speaks for all
                    jobs.append(job)
                    self._begin(job)
                for job in jobs:
                    error = await job.ended
                    if error is not None:
                        raise error
        except TimeoutError:
            raise BackendTimeout("The HAT did not answer in time.") from None
        finally:
            for job in jobs:
                job.abandoned = True
        begun, ended = jobs[0].begun_at or asked, jobs[-1].ended_at
        return Times(begun - asked, ended - begun)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Does something in the thread of this pipeline.

        Raises:
            BackendError: The pipeline is broken.
        """
        if self.broken is not None:
            raise self._translate(self.broken)
        return await self._loop.run_in_executor(self._thread, work)

    def stuck_for(self, now: float) -> float:
        """Seconds since the oldest job under way was begun; 0 if there is none."""
        began = min((job.begun_at for job in self._under_way if job.begun_at is not None), default=now)
        return now - began

    def give_up(self, error: BackendError, *, lost: bool = False) -> None:
        """Lets nobody wait any longer: the pipeline is broken, or even the device lost. The first error counts."""
        self.lost = self.lost or lost
        if self.broken is None:
            self.broken = error
        while self._waiting:
            _settle(self._waiting.popleft().granted, error)
        for job in self._under_way:
            _settle(job.ended, error)

    async def close(self) -> None:
        """Waits for what is under way, for a while, and drops the C++ object in the thread, where it may block."""
        self.give_up(BackendUnavailable("The model is being taken off the HAT."))
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d jobs have not come back from the HAT", len(self._under_way))
        self._free = []
        try:
            await self._loop.run_in_executor(self._thread, self._drop)
        finally:
            self._thread.shutdown(wait=False)

    def _drop(self) -> None:
        # Not shutdown(), which keeps the GIL while it waits for jobs: leaving the context lets go of it.
        configured, self._configured = self._configured, None
        try:
            configured.__exit__(None, None, None)
        except Exception as error:
            log.warning("taking a model off the HAT failed: %s", error)

    async def _take(self, frames: int) -> list[Any]:
        """Bindings for so many frames, when it is this caller's turn."""
        if self.broken is not None:
            raise self._translate(self.broken)
        waiter = _Waiter(frames)
        self._waiting.append(waiter)
        self._hand_out()
        try:
            granted = await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.cancelled():
                self._hand_out()  # who stood behind it may need less
            elif isinstance(given := waiter.granted.result(), list):
                self._give(given)
            raise
        if isinstance(granted, BackendError):
            raise granted
        return granted

    def _hand_out(self) -> None:
        while self._waiting:
            waiter = self._waiting[0]
            if waiter.granted.done():  # it was cancelled, and has not been told yet
                self._waiting.popleft()
                continue
            if waiter.frames > len(self._free):
                return
            self._waiting.popleft()
            taken = self._free[: waiter.frames]
            del self._free[: waiter.frames]
            _settle(waiter.granted, taken)

    def _give(self, bindings: list[Any]) -> None:
        self._free.extend(bindings)
        self._hand_out()

    def _begin(self, job: Job) -> None:
        self._under_way[job] = None
        self._idle.clear()
        self._thread.submit(self._launch, job)

    def _launch(self, job: Job) -> None:
        """Hands a job to HailoRT; in the thread."""
        try:
            left_s = job.deadline - time.monotonic()
            if job.abandoned or left_s <= 0:
                return self._tell(job, BackendTimeout("The HAT was not asked: the deadline had passed."))
            for index, binding in enumerate(job.bindings):
                # Buffers belong to the job: one that was given up cannot write into the answer of another.
                for name, frames in job.inputs.items():
                    binding.input(name).set_buffer(frames[index])
                for name, frames in job.outputs.items():
                    binding.output(name).set_buffer(frames[index])
            self._configured.wait_for_async_ready(timeout_ms=int(left_s * 1000) + 1, frames_count=len(job.bindings))
            job.begun_at = time.monotonic()
            self._configured.run_async(
                job.bindings, callback=lambda completion_info: self._tell(job, completion_info.exception)
            )
        except Exception as error:
            self._tell(job, bare(error))

    def _tell(self, job: Job, error: BaseException | None) -> None:
        """A job has ended; in HailoRT's thread, or in ours."""
        job.ended_at = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._end, job, error)
        except RuntimeError:
            log.warning("a job came back from the HAT when the event loop was closed")

    def _end(self, job: Job, error: BaseException | None) -> None:
        if self._under_way.pop(job, job) is job:
            return None  # HailoRT ended it twice
        if not self._under_way:
            self._idle.set()
        said = None if error is None else self._translate(error)
        untouched = job.begun_at is None and isinstance(said, BackendTimeout)
        if said is None or untouched:
            self._give(job.bindings)
        if said is None:
            if job.abandoned and job.late is not None:
                job.late(job.ended_at - job.asked)
            return _settle(job.ended, None)
        _settle(job.ended, said)
        if not untouched:
            self.broken = self.broken or error
            self.give_up(said)


def _part(frames: Frames, part: slice) -> Frames:
    return {name: rows[part] for name, rows in frames.items()}


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
