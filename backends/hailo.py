"""Runs compiled models (`.hef`) on a Hailo chip, such as a Raspberry Pi's AI HAT+, with HailoRT's asynchronous API.

HailoRT comes with the system's packages and is looked for when a model is opened: without it, or without a HAT, the
models are unavailable, `/status` says why, and they are tried again. Generative models (`hailo_platform.genai`) are
another thing and not served.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from backends.golden import golden_path, proving, read_golden
from backends.hailo_errors import NO_HAT
from backends.hailo_model import HailoModel, Hef
from backends.hailo_pipeline import Pipeline
from backends.hailo_streams import HailoTensor
from backends.versions import Versions, stamp_of
from router.errors import BackendError, BackendRejectedInput, BackendTimeout, BackendUnavailable, InvalidTensor
from router.model import ModelSpec, Tensor, Tensors
from router.ports import BackendContext, Call, Runtime, synthetic_call
from router.types import EncodedImage, Reply, nbytes

PROVIDER = "HailoRT"
"""What runs these models, where ONNX Runtime's name their execution providers."""

HUNG_AFTER_S = 10.0
"""A job that takes longer will not come back: the model is configured anew."""

INLINE_BELOW_BYTES = 65_536
"""Fewer are converted on the event loop, in less time than a hop to a thread and back costs."""


@dataclass(frozen=True, slots=True)
class HailoOptions:
    """There is nothing to set: all backends of this kind share the one device, and HailoRT schedules them."""


@dataclass(frozen=True, slots=True)
class HailoVariant:
    """A compiled model.

    Args:
        file: The `.hef` file, relative to the models directory.
        inputs: How inputs cross to the chip, where the defaults do not fit.
        outputs: The same for outputs.
        golden: The file with the inputs that it must answer before it serves, relative to the models directory. Without
            it, the one beside the `.hef` is taken, if there is one.
    """

    file: str
    inputs: Mapping[str, HailoTensor] = field(default_factory=dict)
    outputs: Mapping[str, HailoTensor] = field(default_factory=dict)
    golden: str | None = None

    @property
    def label(self) -> str:
        """The file's name."""
        return self.file

    @property
    def takes_image(self) -> bool:
        """Never: stages run before it."""
        return False


class HailoBackend:
    """The HAT of this machine. Opening and configuring happen one after the other, in one thread."""

    Options: ClassVar[type] = HailoOptions
    Variant: ClassVar[type] = HailoVariant
    on_device: ClassVar[bool] = True

    def __init__(self, options: HailoOptions, context: BackendContext) -> None:
        self._models_dir = context.models_dir
        self._root = context.root
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hailo")
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, model: ModelSpec, variant: HailoVariant) -> Versions[HailoServable]:
        """Opens the device if it is not, puts the model on it, runs it once and has it answer its golden inputs.

        Another file of the same name takes its place later in the same way, without a request being lost.

        Raises:
            BackendUnavailable: No HailoRT, no HAT, a HAT that another process holds, or a file that does not fit, or
                does not answer its golden inputs.
        """
        path = self._models_dir / variant.file
        golden = golden_path(path) if variant.golden is None else self._models_dir / variant.golden

        async def load() -> HailoServable:
            asked = variant.golden is not None or golden.is_file()
            return await self.load(path, model, variant, golden if asked else None)

        seen = stamp_of(path, golden)
        return Versions(await load(), load, lambda: stamp_of(path, golden), seen, variant.label)

    async def load(self, path: Path, model: ModelSpec, variant: HailoVariant, golden: Path | None) -> HailoServable:
        """Opens one version, which stays what it is.

        Args:
            path: The `.hef`.
            model: The model as applications see it.
            variant: How its tensors cross to the chip.
            golden: The golden inputs that it must answer, if any.

        Raises:
            BackendUnavailable: As `open` does.
        """
        hef = Hef(path, self._root)

        def make() -> HailoModel:
            return HailoModel(hef, model, variant.inputs, variant.outputs)

        servable = HailoServable(hef, make, model, self._thread)
        # Shielded, because a thread does not hear of a cancellation: what it opened must be closed all the same.
        opening = asyncio.create_task(servable.start(golden))
        try:
            await asyncio.shield(opening)
        except BaseException as error:
            closing = asyncio.create_task(_close_when_open(opening, servable))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            if not isinstance(error, asyncio.CancelledError):
                await asyncio.shield(closing)
            raise
        return servable

    async def close(self) -> None:
        """Lets the thread go; the device went with its last model."""
        if self._closing:
            await asyncio.wait(self._closing)
        self._thread.shutdown(wait=False, cancel_futures=True)


class HailoServable:
    """One version of a model, on the HAT.

    After a job failed HailoRT has shut the model's pipeline down, and after the device was lost all of its models'. The
    next call, or the next probe, has it made anew, once for all who wait; when that fails, only probes try again.
    """

    def __init__(self, file: Hef, make: Callable[[], HailoModel], model: ModelSpec, thread: ThreadPoolExecutor) -> None:
        self._file = file
        self._make = make
        self._model = model
        self._thread = thread
        self._hef: HailoModel | None = None
        self._pipeline: Pipeline | None = None
        self._renewal: asyncio.Task[BackendError | None] | None = None
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.runtime = Runtime(PROVIDER)

    async def start(self, golden: Path | None) -> None:
        """Opens the model, warms it up, and has it answer its golden inputs, if it has any."""
        await self._configure_anew()
        self.runtime = Runtime(PROVIDER, sha256=self._file.sha256, golden=golden is not None)
        await self.infer(synthetic_call(self._model), time.monotonic() + HUNG_AFTER_S)
        if golden is not None:
            with proving(self._file.name):
                right = await asyncio.to_thread(read_golden, golden)
                rows = next(iter(right.inputs.values())).shape[:1]
                call = Call(right.inputs, right.size, rows[0] if rows else 1, "golden inputs", {})
                right.check((await self.infer(call, time.monotonic() + HUNG_AFTER_S)).outputs)

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Runs every row as a frame. A call that is given up leaves its frames to end by themselves."""
        with self._in_use():
            return await self._infer(call, deadline)

    async def _infer(self, call: Call, deadline: float) -> Reply:
        assert not isinstance(call.payload, EncodedImage), "takes_image is False"
        asked = time.monotonic()
        try:
            self._model.check_inputs(call.payload)
        except InvalidTensor as error:
            raise BackendRejectedInput(error.detail) from error
        hef, pipeline = await self._ready(deadline, insist=False)
        inputs = await _beside(pipeline, call.payload_bytes, partial(_frames, hef, call.payload))
        outputs = {c.stream: c.empty(call.rows) for c in hef.conversions.outputs.values()}
        converted = time.monotonic()
        times = await pipeline.run(inputs, outputs, deadline, call.late)
        tensors = await _beside(pipeline, nbytes(outputs), partial(_tensors, hef, outputs))
        return Reply(tensors, converted - asked + times.queue_s, 0.0, times.compute_s)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Looks whether a HAT is on the bus and the model on it, and mends what is broken; or runs it on zeros."""
        with self._in_use():
            return await self._probe(deadline, synthetic=synthetic)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Meanwhile the model stays on the chip."""
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        hef, pipeline = await self._ready(deadline, insist=True)
        stuck_s = pipeline.stuck_for(time.monotonic())
        if stuck_s > HUNG_AFTER_S:
            pipeline.give_up(BackendUnavailable(f"The HAT has not ended a run for {stuck_s:.0f} s; it starts anew."))
        elif not await asyncio.get_running_loop().run_in_executor(self._thread, hef.is_connected):
            pipeline.give_up(BackendUnavailable(NO_HAT), lost=True)
        if pipeline.broken is not None:
            raise hef.translated(pipeline.broken)
        return await self._infer(synthetic_call(self._model), deadline) if synthetic else None

    async def close(self) -> None:
        """Takes the model off the chip when its calls have ended or are overdue; the last one lets the device go."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HUNG_AFTER_S):
                await self._idle.wait()
        if self._renewal is not None:
            await asyncio.wait([self._renewal])
        await self._let_go(keep_device=False)

    async def _ready(self, deadline: float, *, insist: bool) -> tuple[HailoModel, Pipeline]:
        """The model and its pipeline, made anew if it is broken. `insist` tries again after a failed attempt."""
        if self._pipeline is None or self._pipeline.broken is not None:
            if self._renewal is None or (insist and self._renewal.done()):
                self._renewal = asyncio.create_task(self._renew())
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    error = await asyncio.shield(self._renewal)
            except TimeoutError:
                raise BackendTimeout("The model is being put on the HAT anew, which takes too long.") from None
            if error is not None:
                raise error
        assert self._hef is not None
        assert self._pipeline is not None
        return self._hef, self._pipeline

    async def _renew(self) -> BackendError | None:
        try:
            await self._configure_anew()
        except BackendError as error:
            return error
        self._renewal = None
        return None

    async def _configure_anew(self) -> None:
        """Puts the model on the chip in place of what is broken; on a new device if that one was lost."""
        await self._let_go(keep_device=True)
        hef, loop = self._hef, asyncio.get_running_loop()
        if hef is None:
            hef = self._make()
            await loop.run_in_executor(self._thread, hef.open)
        self._hef = None  # what cannot be configured has let the device go
        configured, bindings = await loop.run_in_executor(self._thread, hef.configure)
        self._hef, self._pipeline = hef, Pipeline(configured, bindings, hef.translated)

    async def _let_go(self, *, keep_device: bool) -> None:
        hef, pipeline = self._hef, self._pipeline
        lost = (
            pipeline is not None
            and hef is not None
            and pipeline.broken is not None
            and (pipeline.lost or hef.is_lost(pipeline.broken))
        )
        self._pipeline = None
        if pipeline is not None:
            await pipeline.close()
        if hef is not None and (lost or not keep_device):
            self._hef = None
            await asyncio.get_running_loop().run_in_executor(self._thread, partial(hef.close, lost=lost))


async def _close_when_open(opening: asyncio.Task[None], servable: HailoServable) -> None:
    await asyncio.gather(opening, return_exceptions=True)
    await servable.close()


async def _beside(pipeline: Pipeline, size: int, convert: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Converts so many bytes; many of them in the pipeline's thread, since a large picture takes milliseconds."""
    return convert() if size < INLINE_BELOW_BYTES else await pipeline.in_thread(convert)


def _tensors(hef: HailoModel, outputs: Tensors) -> dict[str, Tensor]:
    return {name: c.from_stream(outputs[c.stream]) for name, c in hef.conversions.outputs.items()}


def _frames(hef: HailoModel, tensors: Tensors) -> dict[str, Tensor]:
    return {c.stream: c.to_stream(tensors[name]) for name, c in hef.conversions.inputs.items()}
