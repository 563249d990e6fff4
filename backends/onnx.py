"""Runs ONNX models on the device with ONNX Runtime: short ones on the event loop, long ones in threads."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

# ONNX Runtime's official builds report to their maker unless this is set before the library is loaded, and nothing may
# leave the site that a policy does not send.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from router.errors import BackendError, BackendFailed, BackendRejectedInput, BackendUnavailable
from router.model import ModelSpec, Tensors, TensorSpec
from router.ports import BackendContext, Call, synthetic_call
from router.types import EncodedImage, Reply

INLINE_BELOW_S = 0.001
"""A run expected to be shorter blocks the event loop for less than a hop to a thread and back would cost it."""

_UPWARDS = 0.1
_OUTLIER = 4.0

_ONNX_TYPES = {
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
    "tensor(string)": "string",
}


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How ONNX Runtime is set up.

    Args:
        intra_op_threads: Threads that one run may use; 0 is one per core.
    """

    intra_op_threads: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.intra_op_threads <= 256:
            raise ValueError("intra_op_threads must be between 0 and 256")


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
        servable = OnnxServable(session, model, self._threads)
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


class OnnxServable:
    """One session. `InferenceSession.run` lets go of the GIL and may be called from many threads at once."""

    def __init__(self, session: ort.InferenceSession, model: ModelSpec, threads: ThreadPoolExecutor) -> None:
        self._session = session
        self._model = model
        self._threads = threads
        self._output_names = list(model.outputs)
        self._expected_s: dict[int, float] = {}

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Runs the model, inline if a payload of this size is known to be quick."""
        assert not isinstance(call.payload, EncodedImage), "takes_image is False"
        bucket = call.payload_bytes.bit_length()
        if self._expected_s.get(bucket, INLINE_BELOW_S) < INLINE_BELOW_S:
            return self._run(call.payload, bucket, None, time.monotonic())
        options = ort.RunOptions()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._run, call.payload, bucket, options, time.monotonic()
            )
        except asyncio.CancelledError:
            # The thread does not hear of the cancellation; this makes its run end at the next operator.
            options.terminate = True
            raise

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """A loaded session is ready; whether it works, only running it tells."""
        if not synthetic:
            return None
        return await self.infer(synthetic_call(self._model), deadline)

    async def close(self) -> None:
        """Nothing to do: the session goes with its last reference."""

    def warm_up(self) -> None:
        """Runs twice: the first allocates and is slow, the second says how long a run takes."""
        call = synthetic_call(self._model)
        assert not isinstance(call.payload, EncodedImage)
        for _ in range(2):
            self._run(call.payload, call.payload_bytes.bit_length(), None, time.monotonic())

    def _run(self, inputs: Tensors, bucket: int, options: ort.RunOptions | None, asked: float) -> Reply:
        started = time.monotonic()
        try:
            outputs = self._session.run(self._output_names, inputs, options)
        except Exception as error:
            raise _translated(error) from error
        ended = time.monotonic()
        self._learn(bucket, ended - started)
        return Reply(dict(zip(self._output_names, outputs, strict=True)), started - asked, 0.0, ended - started)

    def _learn(self, bucket: int, took_s: float) -> None:
        """Moves what is expected of a bucket: down at once, up slowly and never by much.

        A run looks long when the thread was preempted or waited for the GIL, and never looks short by accident.
        """
        expected = self._expected_s.get(bucket, took_s)
        if took_s > expected:
            took_s = expected + _UPWARDS * (min(took_s, _OUTLIER * expected) - expected)
        self._expected_s[bucket] = took_s


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
        dtype = _ONNX_TYPES.get(node.type, node.type)
        shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
        fits = len(shape) == len(spec.shape) and all(
            wanted == actual or actual == -1 for wanted, actual in zip(spec.shape, shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise BackendUnavailable(
                f"{file} has {name!r} as {dtype} {list(shape)}; the policy file says {spec.dtype} {list(spec.shape)}."
            )
