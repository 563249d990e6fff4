"""Runs a session and learns how long that takes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from backends.onnx_bfloat16 import bfloat16_run, has_bfloat16
from backends.quiet_onnxruntime import InvalidArgument, ort
from router.errors import BackendError, BackendFailed, BackendRejectedInput
from router.model import ModelSpec, Tensor, Tensors

_UPWARDS = 0.1
_OUTLIER = 4.0


class Runner:
    """One session. `InferenceSession.run` lets go of the GIL and may be called from many threads at once.

    Nothing that this refers to refers back, so that the session's memory is free with the last reference.

    Args:
        session: The session.
        model: What the model takes, and the outputs that are wanted.

    Attributes:
        expected_s: Seconds that a run is expected to take, by the bit length of its input's size.
    """

    __slots__ = ("_outputs", "_session_run", "_texts", "expected_s")

    def __init__(self, session: ort.InferenceSession, model: ModelSpec) -> None:
        self._session_run = bfloat16_run(session, model) if has_bfloat16(model) else session.run
        self._outputs = list(model.outputs)
        self._texts = tuple(name for name, spec in model.inputs.items() if spec.dtype == "string")
        self.expected_s: dict[int, float] = {}

    def run(self, inputs: Tensors, size: int, stop: Any) -> tuple[dict[str, Tensor], float]:
        """Runs the model once, and learns from it how long that takes. See `batch.Run`."""
        if self._texts:
            inputs = {**inputs, **{name: _decoded(inputs[name]) for name in self._texts}}
        started = time.monotonic()
        try:
            outputs = self._session_run(self._outputs, inputs, stop)
        except Exception as error:
            raise _translated(error) from error
        took_s = time.monotonic() - started
        self._learn(size.bit_length(), took_s)
        return dict(zip(self._outputs, outputs, strict=True)), took_s

    def _learn(self, bucket: int, took_s: float) -> None:
        """Moves what is expected of a bucket: down at once, up slowly and never by much.

        A run looks long when the thread was preempted or waited for the GIL, and never looks short by accident.
        """
        expected = self.expected_s.get(bucket, took_s)
        if took_s > expected:
            took_s = expected + _UPWARDS * (min(took_s, _OUTLIER * expected) - expected)
        self.expected_s[bucket] = took_s


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
