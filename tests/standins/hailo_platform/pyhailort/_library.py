"""What the vendor's C++ library does: files, a pipeline's queue, its threads. Statuses are names, "" is success."""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from ..standin import CHIP  # noqa: TID252 a package that is imported under another name by type checkers

Buffer = np.ndarray[Any, np.dtype[Any]]

DTYPES = {"FLOAT32": np.float32, "UINT8": np.uint8, "UINT16": np.uint16, "AUTO": np.uint8}


class Ownership:
    """Whoever refers to it owns the chip, like the library's shared pointers."""

    def __del__(self) -> None:
        CHIP.let_go()


@dataclass
class StreamInfo:
    """A stream of a file, and how its buffers look."""

    name: str
    tensor: str
    shape: Sequence[int]
    order: str
    qp_scale: float
    qp_zp: float
    onnx_shape: Sequence[int]
    type: str = "AUTO"

    @property
    def dtype(self) -> Any:
        return DTYPES[self.type]

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.shape) * int(np.dtype(self.dtype).itemsize)

    def to_model(self, buffer: Buffer) -> Buffer:
        """What the model is asked: dequantised, and with channels first if it has them."""
        values = buffer.reshape(self.shape).astype(np.float32)
        if self.dtype is not np.float32:
            values = (values - self.qp_zp) * self.qp_scale
        if len(self.onnx_shape) == 3:
            values = values.transpose(2, 0, 1)
        return values.reshape(1, *self.onnx_shape).astype(np.float32)

    def to_buffer(self, answer: Buffer, buffer: Buffer) -> None:
        """Writes what the model answered."""
        values = np.asarray(answer, np.float32)[0]
        if len(self.onnx_shape) == 3:
            values = values.reshape(self.onnx_shape).transpose(1, 2, 0)
        if self.dtype is not np.float32:
            values = np.clip(np.rint(values / self.qp_scale + self.qp_zp), 0, np.iinfo(self.dtype).max)
        buffer.reshape(self.shape)[...] = values.reshape(self.shape)


@dataclass
class Hef:
    """A file."""

    session: ort.InferenceSession
    inputs: list[StreamInfo]
    outputs: list[StreamInfo]

    @classmethod
    def read(cls, source: str | bytes) -> Self:
        """Reads it; raises what the library raises for one that is none."""
        from ._statuses import exception_for

        try:
            document = json.loads(Path(source).read_bytes() if isinstance(source, str) else source)
            settings = ort.SessionOptions()
            settings.intra_op_num_threads = 1
            session = ort.InferenceSession(document["onnx"], settings, providers=["CPUExecutionProvider"])
            inputs, outputs = (
                [_stream(name, said) for name, said in document[side].items()] for side in ("inputs", "outputs")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise exception_for("HAILO_INVALID_HEF") from error
        if document.get("compiled_for", "hailo8l") != "hailo8l":
            raise exception_for("HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE")
        return cls(session, inputs, outputs)


def _stream(tensor: str, said: Mapping[str, Any]) -> StreamInfo:
    return StreamInfo(
        said["stream"],
        tensor,
        said["shape"],
        said.get("order", "NHWC"),
        said.get("scale", 1.0),
        said.get("zero_point", 0.0),
        said.get("onnx_shape", said["shape"]),
    )


@dataclass(eq=False)
class Frame:
    """Buffers of one frame."""

    inputs: Mapping[str, Buffer | None]
    outputs: Mapping[str, Buffer | None]


@dataclass(eq=False)
class Job:
    """Frames that end together."""

    frames: Sequence[Frame]
    ended: Callable[[str], None]
    status: str = ""


class Pipeline:
    """A queue of bounded length, a thread that is the chip, and a thread that calls back."""

    def __init__(self, hef: Hef, ownership: Ownership) -> None:
        self.hef = hef
        self._ownership: Ownership | None = ownership
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._under_way = 0
        self._stopped = ""
        self._callbacks: queue.SimpleQueue[tuple[Job, str] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=target, name=f"standin-{name}", daemon=True)
            for name, target in (("chip", self._work), ("callbacks", self._call_back))
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_room(self, frames: int, seconds: float) -> str:
        """Waits until so many frames fit."""
        with self._changed:
            ready = self._changed.wait_for(
                lambda: bool(self._stopped) or self._under_way + frames <= CHIP.queue_size, seconds
            )
            return self._stopped or ("" if ready else "HAILO_TIMEOUT")

    def push(self, frames: Sequence[Frame], ended: Callable[[str], None]) -> str:
        """Queues frames. When it cannot, the pipeline is shut down, as the library's is."""
        status = self._stopped or next(filter(None, map(self._problem_with, frames)), "")
        if not status and CHIP.refuse_next:
            status = CHIP.refuse_next.pop(0)
        with self._changed:
            if not status and self._under_way + len(frames) > CHIP.queue_size:
                status = "HAILO_QUEUE_IS_FULL"
            if not status:
                self._under_way += len(frames)
                CHIP.most_under_way = max(CHIP.most_under_way, self._under_way)
                self._jobs.append(Job(frames, ended))
                self._changed.notify_all()
        if status:
            self.shut_down("HAILO_STREAM_ABORT")
        return status

    def _problem_with(self, frame: Frame) -> str:
        for streams, buffers in ((self.hef.inputs, frame.inputs), (self.hef.outputs, frame.outputs)):
            for stream in streams:
                buffer = buffers[stream.name]
                if buffer is None:
                    return "HAILO_NOT_FOUND"
                if buffer.nbytes != stream.frame_bytes:
                    return "HAILO_INVALID_OPERATION"
        return ""

    def shut_down(self, status: str) -> None:
        """Nothing more runs: what is queued ends with this status."""
        with self._changed:
            self._stopped = self._stopped or status
            self._changed.notify_all()

    def drop(self) -> None:
        """The destructor: waits for the threads, ten seconds at most."""
        self.shut_down("HAILO_STREAM_ABORT")
        for thread in self._threads:
            thread.join(10)
        self._ownership = None

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._jobs) or bool(self._stopped))
                if not self._jobs:
                    return self._callbacks.put(None)
                job, stopped = self._jobs.pop(0), self._stopped
            status = stopped
            for frame in job.frames:
                status = status or self._run(frame)
            if status:
                self.shut_down("HAILO_STREAM_ABORT")
            with self._changed:
                self._under_way -= len(job.frames)
                self._changed.notify_all()
            self._callbacks.put((job, status))

    def _run(self, frame: Frame) -> str:
        time.sleep(CHIP.frame_s)
        status = CHIP.outcome()
        if status or self._stopped:
            return status or self._stopped
        given = {stream.tensor: stream.to_model(_there(frame.inputs[stream.name])) for stream in self.hef.inputs}
        answers = self.hef.session.run([stream.tensor for stream in self.hef.outputs], given)
        for stream, answer in zip(self.hef.outputs, answers, strict=True):
            stream.to_buffer(answer, _there(frame.outputs[stream.name]))
        return ""

    def _call_back(self) -> None:
        while (item := self._callbacks.get()) is not None:
            job, status = item
            job.ended(status)


def _there(buffer: Buffer | None) -> Buffer:
    assert buffer is not None
    return buffer
