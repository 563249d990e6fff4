"""Runs ONNX models on the device with ONNX Runtime: short ones on the event loop, long ones in threads, in batches."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

# ONNX Runtime's official builds report to their maker unless this is set before the library is loaded, and nothing may
# leave the site that a policy does not send.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from backends.batch import Bounds
from backends.batch_size import MOST_ROWS, rows_that_pay
from backends.batcher import Batcher
from backends.onnx_bfloat16 import bfloat16_run, has_bfloat16
from backends.turn_batcher import TurnBatcher
from router.errors import BackendError, BackendFailed, BackendRejectedInput, BackendUnavailable
from router.model import ModelSpec, Tensor, Tensors, TensorSpec
from router.ports import BackendContext, Call, synthetic_call
from router.types import EncodedImage, Reply, row_count

log = logging.getLogger(__name__)

INLINE_BELOW_S = 0.001
"""A run expected to be shorter blocks the event loop for less than a hop to a thread and back would cost it."""

SHARED_BESIDE_ABOVE_S = 0.00025
"""Of requests that are ready in the same turn of the loop, all but the first share a run: on the loop where a run is
expected to be shorter than this, which costs less than the hop to a thread and back, else in a thread."""

_UPWARDS = 0.1
_OUTLIER = 4.0

ONNX_TYPES = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bfloat16)": "bfloat16",
    "tensor(string)": "string",
}


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How ONNX Runtime is set up.

    Args:
        intra_op_threads: Threads that one run may use; 0 is one per core.
        max_batch_rows: Rows of different requests that may share a run; 1 lets each run by itself, 0 finds out at the
            start how many pay.
        max_batch_bytes: Bytes of input that may share a run.
    """

    intra_op_threads: int = 0
    max_batch_rows: int = 0
    max_batch_bytes: int = 16 << 20

    def __post_init__(self) -> None:
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
    """

    file: str

    @property
    def label(self) -> str:
        """The file's name."""
        return self.file

    @property
    def takes_image(self) -> bool:
        """Never: stages run before it."""
        return False


class OnnxBackend:
    """ONNX Runtime in this process, with a pool of threads for long runs."""

    Options: ClassVar[type] = OnnxOptions
    Variant: ClassVar[type] = OnnxVariant
    on_device: ClassVar[bool] = True

    def __init__(self, options: OnnxOptions, context: BackendContext) -> None:
        self._options = options
        self._models_dir = context.models_dir
        # One core is left to the event loop: requests that it cannot read are of no use to the others.
        threads = max(1, (os.cpu_count() or 1) - 1)
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="onnx")

    async def open(self, model: ModelSpec, variant: OnnxVariant) -> OnnxServable:
        """Loads the file, holds it against the model's spec and warms it up.

        Raises:
            BackendUnavailable: The file is missing, is no model, or is another model than the spec says.
        """
        loop = asyncio.get_running_loop()
        session = await loop.run_in_executor(self._threads, self._load, model, variant)
        servable = OnnxServable(session, model, self._options, self._threads)
        await loop.run_in_executor(self._threads, servable.warm_up)
        return servable

    async def close(self) -> None:
        """Lets the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _load(self, model: ModelSpec, variant: OnnxVariant) -> ort.InferenceSession:
        path = self._models_dir / variant.file
        if not path.is_file():
            raise BackendUnavailable(f"The model file {path} does not exist.")
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._options.intra_op_threads
        # Spinning threads would take the cores that the event loop needs.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 4
        try:
            session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendUnavailable(f"ONNX Runtime cannot load {path}: {error}") from error
        _check_signature(path.name, session.get_inputs(), model.inputs)
        _check_signature(path.name, session.get_outputs(), model.outputs)
        return session


@dataclass(frozen=True, slots=True)
class _Sharing:
    """How requests share runs of one model: on the event loop, or in a thread beside it."""

    in_turn: TurnBatcher
    beside: Batcher


class OnnxServable:
    """One session. `InferenceSession.run` lets go of the GIL and may be called from many threads at once."""

    def __init__(
        self, session: ort.InferenceSession, model: ModelSpec, options: OnnxOptions, threads: ThreadPoolExecutor
    ) -> None:
        self._session_run = bfloat16_run(session, model) if has_bfloat16(model) else session.run
        self._model = model
        self._options = options
        self._threads = threads
        self._output_names = list(model.outputs)
        self._texts = tuple(name for name, spec in model.inputs.items() if spec.dtype == "string")
        self._expected_s: dict[int, float] = {}
        self._sharing: _Sharing | None = None

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
        return await batcher.infer(inputs, row_count(inputs, self._model), size, deadline)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """A loaded session is ready; whether it works, only running it tells."""
        if not synthetic:
            return None
        return await self.infer(synthetic_call(self._model), deadline)

    async def close(self) -> None:
        """Nothing to do: the session goes with its last reference."""

    def warm_up(self) -> None:
        """Runs it on made-up input: with one row, and with as many as will share a run.

        The first run of any size allocates and is slow; no request is to pay for that.
        """
        self._time_of(1)
        if self._model.batchable and self._options.max_batch_rows != 1:
            rows = self._rows_to_share()
            if rows > 1:
                bounds = Bounds(rows, self._options.max_batch_bytes)
                self._sharing = _Sharing(
                    TurnBatcher(self._run, bounds, time.monotonic),
                    Batcher(self._run, ort.RunOptions, self._threads, bounds, time.monotonic),
                )

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

    def _run(self, inputs: Tensors, size: int, stop: Any) -> tuple[dict[str, Tensor], float]:
        """Runs the model once, and learns from it how long that takes. See `batch.Run`."""
        if self._texts:
            inputs = {**inputs, **{name: _decoded(inputs[name]) for name in self._texts}}
        started = time.monotonic()
        try:
            outputs = self._session_run(self._output_names, inputs, stop)
        except Exception as error:
            raise _translated(error) from error
        took_s = time.monotonic() - started
        self._learn(size.bit_length(), took_s)
        return dict(zip(self._output_names, outputs, strict=True)), took_s

    def _learn(self, bucket: int, took_s: float) -> None:
        """Moves what is expected of a bucket: down at once, up slowly and never by much.

        A run looks long when the thread was preempted or waited for the GIL, and never looks short by accident.
        """
        expected = self._expected_s.get(bucket, took_s)
        if took_s > expected:
            took_s = expected + _UPWARDS * (min(took_s, _OUTLIER * expected) - expected)
        self._expected_s[bucket] = took_s


def _decoded(tensor: Tensor) -> Tensor:
    """Text as ONNX Runtime takes it: of bytes it would take what Python prints of them, `b'...'`.

    Raises:
        BackendRejectedInput: An element is not UTF-8.
    """
    texts = np.empty(tensor.size, dtype=object)
    try:
        texts[:] = [item.decode() if isinstance(item, bytes) else item for item in tensor.flat]
    except UnicodeDecodeError as error:
        raise BackendRejectedInput(f"The model takes text in UTF-8 only: {error}") from error
    return texts.reshape(tensor.shape)


def _translated(error: Exception) -> BackendError:
    sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, InvalidArgument):
        return BackendRejectedInput(f"The model does not accept this input: {sentence}")
    return BackendFailed(f"ONNX Runtime failed: {sentence}")


def _check_signature(file: str, found: list[Any], declared: dict[str, TensorSpec] | Any) -> None:
    """Raises BackendUnavailable unless the file has every declared tensor, in type and shape."""
    by_name = {node.name: node for node in found}
    for name, spec in declared.items():
        node = by_name.get(name)
        if node is None:
            raise BackendUnavailable(f"{file} has no tensor {name!r}; it has {', '.join(by_name)}.")
        dtype = ONNX_TYPES.get(node.type, node.type)
        shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
        fits = len(shape) == len(spec.shape) and all(
            wanted == actual or actual == -1 for wanted, actual in zip(spec.shape, shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise BackendUnavailable(
                f"{file} has {name!r} as {dtype} {list(shape)}; the policy file says {spec.dtype} {list(spec.shape)}."
            )
