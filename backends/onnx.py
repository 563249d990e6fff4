"""Runs ONNX models on the device with ONNX Runtime: short ones on the event loop, long ones in threads, in batches."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from backends.batch import Bounds, run_now
from backends.batch_size import MOST_ROWS, rows_that_pay
from backends.batcher import Batcher
from backends.golden import golden_path, proving, read_golden
from backends.memory import give_back
from backends.onnx_cache import OptimisedModels
from backends.onnx_runner import Runner
from backends.onnx_session import CPU, Loaded, Loader, check_signature
from backends.quiet_onnxruntime import ort
from backends.turn_batcher import TurnBatcher
from backends.versions import Versions, stamp_of
from router.errors import BackendError, BackendFailed
from router.model import ModelSpec, Tensors
from router.ports import BackendContext, Call, Runtime, synthetic_call
from router.types import EncodedImage, Reply

log = logging.getLogger(__name__)

INLINE_BELOW_S = 0.001
"""A run expected to be shorter blocks the event loop for less than a hop to a thread and back would cost it."""

SHARED_BESIDE_ABOVE_S = 0.00025
"""Of requests that are ready in the same turn of the loop, all but the first share a run: on the loop where a run is
expected to be shorter than this, which costs less than the hop to a thread and back, else in a thread."""


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How ONNX Runtime is set up.

    Args:
        providers: Execution providers in order of preference. No other runs any part of a model: a model that needs
            one which is not listed cannot be opened.
        intra_op_threads: Threads that one run may use; 0 is one per core.
        max_batch_rows: Rows of different requests that may share a run; 1 lets each run by itself, 0 finds out at the
            start how many pay.
        max_batch_bytes: Bytes of input that may share a run.
        keep_run_memory: Whether what the largest run took is kept for the next ones; without that, it is given back
            after each, and large runs take longer.
    """

    providers: tuple[str, ...] = (CPU,)
    intra_op_threads: int = 0
    max_batch_rows: int = 0
    max_batch_bytes: int = 16 << 20
    keep_run_memory: bool = True

    def __post_init__(self) -> None:
        if not self.providers or len(set(self.providers)) != len(self.providers):
            raise ValueError("providers must name at least one, and each once")
        if not 0 <= self.intra_op_threads <= 256:
            raise ValueError("intra_op_threads must be between 0 and 256")
        if not 0 <= self.max_batch_rows <= 4096:
            raise ValueError("max_batch_rows must be between 0 and 4096")
        if not 1 <= self.max_batch_bytes <= 1 << 30:
            raise ValueError(f"max_batch_bytes must be between 1 and {1 << 30}")


@dataclass(frozen=True, slots=True)
class OnnxVariant:
    """A model file.

    Args:
        file: The `.onnx` file, relative to the models directory.
        golden: The file with the inputs that it must answer before it serves, relative to the models directory. Without
            it, the one beside the model file is taken, if there is one.
    """

    file: str
    golden: str | None = None

    @property
    def label(self) -> str:
        """The file's name."""
        return self.file

    @property
    def takes_image(self) -> bool:
        """Never: stages run before it."""
        return False


def loader_of(options: OnnxOptions, root: Path, cache: OptimisedModels | None) -> Loader:
    """How models are loaded with these options. See `Loader`."""
    return Loader(options.providers, options.intra_op_threads, root, cache, options.keep_run_memory)


class OnnxBackend:
    """ONNX Runtime in this process, with a pool of threads for long runs."""

    Options: ClassVar[type] = OnnxOptions
    Variant: ClassVar[type] = OnnxVariant
    on_device: ClassVar[bool] = True

    def __init__(self, options: OnnxOptions, context: BackendContext) -> None:
        self._options = options
        self._models_dir = context.models_dir
        cache = None if context.cache_dir is None else OptimisedModels(context.cache_dir)
        self._loader = loader_of(options, context.root, cache)
        # One core is left to the event loop: requests that it cannot read are of no use to the others.
        threads = max(1, (os.cpu_count() or 1) - 1)
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="onnx")

    async def open(self, model: ModelSpec, variant: OnnxVariant) -> OnnxVersions:
        """Loads the file, holds it against the model's spec, warms it up and has it answer its golden inputs.

        Another file of the same name takes its place later in the same way, without a request being lost.

        Raises:
            BackendUnavailable: The file is missing, does not fit, is no model or another than the spec says, or does
                not answer its golden inputs.
        """
        path = self._models_dir / variant.file
        golden = golden_path(path) if variant.golden is None else self._models_dir / variant.golden

        def read() -> OnnxServable:
            asked = variant.golden is not None or golden.is_file()
            loaded = self._loader.load(path)
            check_signature(path.name, loaded.session.get_inputs(), model.inputs)
            check_signature(path.name, loaded.session.get_outputs(), model.outputs)
            servable = OnnxServable(loaded, model, self._options, self._threads)
            servable.warm_up()
            if asked:
                servable.prove(path.name, golden)
            give_back()
            return servable

        seen = stamp_of(path, golden)

        # Not in the threads that requests run in: they go on while a model is loaded.
        async def load() -> OnnxServable:
            return await asyncio.to_thread(read)

        return OnnxVersions(await load(), load, lambda: stamp_of(path, golden), seen, variant.label)

    async def close(self) -> None:
        """Lets the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Sharing:
    """How requests share runs of one model: on the event loop, or in a thread beside it."""

    in_turn: TurnBatcher
    beside: Batcher


class OnnxVersions(Versions["OnnxServable"]):
    """A model whose file may be replaced while it serves, and that runs on the event loop itself where it is quick."""

    def runs_inline(self, calls: int, payload_bytes: int) -> int:
        """Whether the version in force would, and how many at a time. See `router.ports.RunsInline`."""
        return self.in_force.runs_inline(calls, payload_bytes)

    def infer_inline(self, calls: Sequence[Call], deadlines: Sequence[float]) -> list[Reply | BackendError]:
        """Runs the version in force. See `router.ports.RunsInline`."""
        return self.in_force.infer_inline(calls, deadlines)


class OnnxServable:
    """One version of a model.

    Nothing that it refers to refers back, so that its memory is free with the last call that uses it.
    """

    def __init__(self, loaded: Loaded, model: ModelSpec, options: OnnxOptions, threads: ThreadPoolExecutor) -> None:
        runner = Runner(loaded.session, model)
        self._run = runner.run
        self._expected_s = runner.expected_s
        self._model = model
        self._options = options
        self._threads = threads
        self.runtime = Runtime(loaded.provider, loaded.missing, loaded.sha256)
        self._sharing: _Sharing | None = None
        self._bounds = Bounds(1, options.max_batch_bytes)

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Runs the model: inline if a payload of this size is known to be quick, else in a thread.

        Where the model gains by it, requests that come while it runs share its next run.
        """
        inputs, size = call.payload, call.payload_bytes
        assert not isinstance(inputs, EncodedImage), "takes_image is False"
        expected_s = self._expected_s.get(size.bit_length(), INLINE_BELOW_S)
        sharing = self._sharing
        if sharing is None:
            if expected_s < INLINE_BELOW_S:
                return self._reply(inputs, size, None, time.monotonic())
            return await self._run_beside(inputs, size)
        if expected_s < INLINE_BELOW_S and sharing.beside.idle and sharing.in_turn.alone():
            return self._reply(inputs, size, None, time.monotonic())
        batcher = sharing.in_turn if expected_s < SHARED_BESIDE_ABOVE_S else sharing.beside
        return await batcher.infer(inputs, call.rows, size, deadline)

    def runs_inline(self, calls: int, payload_bytes: int) -> int:
        """Whether it is known to be quick with a payload of this size. See `router.ports.RunsInline`."""
        expected_s = self._expected_s.get(payload_bytes.bit_length(), INLINE_BELOW_S)
        sharing = self._sharing
        if sharing is None:
            quick = calls * expected_s < INLINE_BELOW_S
        else:
            quick = sharing.beside.idle and expected_s < (INLINE_BELOW_S if calls == 1 else SHARED_BESIDE_ABOVE_S)
        return self._bounds.rows if quick else 0

    def infer_inline(self, calls: Sequence[Call], deadlines: Sequence[float]) -> list[Reply | BackendError]:
        """Runs the model on each of these, on several at a time where it gains by it."""
        return run_now(calls, deadlines, self._run, self._bounds, time.monotonic)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """A loaded session is ready; whether it works, only running it tells."""
        if not synthetic:
            return None
        return await self.infer(synthetic_call(self._model), deadline)

    async def close(self) -> None:
        """Nothing is left to do: calls under way keep what they need."""

    def warm_up(self) -> None:
        """Runs it on made-up input: with one row, and with as many as will share a run.

        The first run of any size allocates and is slow; no request is to pay for that.
        """
        self._time_of(1)
        if self._model.batchable and self._options.max_batch_rows != 1:
            rows = self._rows_to_share()
            if rows > 1:
                self._bounds = bounds = Bounds(rows, self._options.max_batch_bytes)
                self._sharing = _Sharing(
                    TurnBatcher(self._run, bounds, time.monotonic),
                    Batcher(self._run, ort.RunOptions, self._threads, bounds, time.monotonic),
                )

    def prove(self, file: str, path: Path) -> None:
        """Has it answer its golden inputs.

        Args:
            file: How the model file is called in errors.
            path: The golden inputs.

        Raises:
            BackendUnavailable: It does not, or they cannot be read.
        """
        with proving(file):
            golden = read_golden(path)
            outputs, _ = self._run(golden.inputs, golden.size, None)
            golden.check(outputs)
        self.runtime = replace(self.runtime, golden=True)

    def _rows_to_share(self) -> int:
        """How many rows may share a run: as the policy file says, or as many as pay."""
        given = self._options.max_batch_rows
        fit = max(1, self._options.max_batch_bytes // max(1, synthetic_call(self._model).payload_bytes))
        try:
            if not given:
                return rows_that_pay(self._time_of, min(MOST_ROWS, fit), time.monotonic)
            self._time_of(min(given, fit))
        except BackendError as error:
            log.warning("%s cannot share runs: %s", self._model.name, error.detail)
            return 1
        return given

    def _time_of(self, rows: int) -> float:
        """Runs twice with so many rows, made up, and returns the seconds that the faster one took.

        Raises:
            BackendError: The model does not run, or does not give a row for each row.
        """
        call = synthetic_call(self._model)
        inputs, size = call.payload, call.payload_bytes
        assert not isinstance(inputs, EncodedImage)
        if rows > 1:
            inputs, size = {name: np.repeat(tensor, rows, axis=0) for name, tensor in inputs.items()}, rows * size
        (outputs, once_s), (_, again_s) = self._run(inputs, size, None), self._run(inputs, size, None)
        if rows > 1 and any(len(tensor) != rows for tensor in outputs.values()):
            raise BackendFailed(f"it does not give {rows} rows for {rows}")
        return min(once_s, again_s)

    async def _run_beside(self, inputs: Tensors, size: int) -> Reply:
        """Runs in a thread, alone."""
        options = ort.RunOptions()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._reply, inputs, size, options, time.monotonic()
            )
        except asyncio.CancelledError:
            # The thread does not hear of the cancellation; this makes its run end at the next operator.
            options.terminate = True
            raise

    def _reply(self, inputs: Tensors, size: int, options: ort.RunOptions | None, asked: float) -> Reply:
        began = time.monotonic()
        outputs, took_s = self._run(inputs, size, options)
        return Reply(outputs, began - asked, 0.0, took_s)
