"""Runs a session and learns how long that takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from backends.quiet_onnxruntime import InvalidArgument
from router.errors import BackendError, BackendFailed, BackendRejectedInput
from router.model import Tensor, Tensors

_UPWARDS = 0.1
_OUTLIER = 4.0


class Runner:
    """One session. `InferenceSession.run` lets go of the GIL and may be called from many threads at once.

    Nothing that this refers to refers back, so that the session's memory is free with the last reference.

    Args:
        session: The session.
        outputs: The outputs that are wanted.

    Attributes:
        expected_s: Seconds that a run is expected to take, by the bit length of its input's size.
    """

    __slots__ = ("_outputs", "_session", "expected_s")

    def __init__(self, session: Any, outputs: Sequence[str]) -> None:
        self._session = session
        self._outputs = list(outputs)
        self.expected_s: dict[int, float] = {}

    def run(self, inputs: Tensors, size: int, stop: Any) -> tuple[dict[str, Tensor], float]:
        """Runs the model once, and learns from it how long that takes. See `batcher.Run`."""
        started = time.monotonic()
        try:
            outputs = self._session.run(self._outputs, inputs, stop)
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


def _translated(error: Exception) -> BackendError:
    sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, InvalidArgument):
        return BackendRejectedInput(f"The model does not accept this input: {sentence}")
    return BackendFailed(f"ONNX Runtime failed: {sentence}")
