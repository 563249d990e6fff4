"""The vendor's classes: exceptions, devices, infer models, jobs. What the C++ library does is in `_library`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from ..standin import CHIP  # noqa: TID252 a package that is imported under another name by type checkers
from . import _library
from ._device import *  # noqa: F403 the vendor has it all in this module
from ._device import Device
from ._statuses import *  # noqa: F403
from ._statuses import HailoRTException, exception_for

Buffer = np.ndarray[Any, np.dtype[Any]]


class FormatType(Enum):
    AUTO = 0
    UINT8 = 1
    UINT16 = 2
    FLOAT32 = 3


class FormatOrder(Enum):
    AUTO = 0
    NHWC = 1
    NHW = 7
    NC = 8
    HAILO_NMS_BY_CLASS = 14


class HailoSchedulingAlgorithm(Enum):
    NONE = 0
    ROUND_ROBIN = 1


class HailoPowerMode(Enum):
    PERFORMANCE = 0
    ULTRA_PERFORMANCE = 1


class VDeviceParams:
    """How a VDevice is opened."""

    scheduling_algorithm = HailoSchedulingAlgorithm.ROUND_ROBIN
    group_id = "UNIQUE"
    device_count = 1


class VDevice:
    """The chip, for inference. As long as anything made on it lives, the chip is not free."""

    def __init__(self, params: VDeviceParams | None = None, *, device_ids: Sequence[str] | None = None) -> None:
        CHIP.garbage_collections += 1
        self._creation_pid = os.getpid()
        if not CHIP.take():
            raise exception_for("HAILO_OUT_OF_PHYSICAL_DEVICES")
        self._vdevice: _library.Ownership | None = _library.Ownership()

    @staticmethod
    def create_params() -> VDeviceParams:
        return VDeviceParams()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> Literal[False]:
        self.release()
        return False

    def release(self) -> None:
        self._vdevice = None

    def get_physical_devices_ids(self) -> list[str]:
        return Device.scan()

    def get_physical_devices(self) -> list[Device]:
        return [Device(device_id) for device_id in self.get_physical_devices_ids()]

    def create_infer_model(self, hef_source: str | bytes, name: str = "") -> InferModel:
        if os.getpid() != self._creation_pid:
            raise HailoRTException("InferModel can be created only from the process VDevice was created in.")
        assert self._vdevice is not None
        if not CHIP.present:
            raise exception_for("HAILO_COMMUNICATION_CLOSED")
        return InferModel(_library.Hef.read(hef_source), self._vdevice)


class HEF:
    """A compiled file."""

    def __init__(self, hef_source: str | bytes) -> None:
        self._hef = _library.Hef.read(hef_source)


class InferStream:
    """An input or output of an infer model."""

    def __init__(self, stream: _library.StreamInfo) -> None:
        self._stream = stream

    @property
    def name(self) -> str:
        return self._stream.name

    @property
    def shape(self) -> list[int]:
        return list(self._stream.shape)

    @property
    def format(self) -> _library.StreamInfo:
        return self._stream

    @property
    def quant_infos(self) -> list[_library.StreamInfo]:
        return [self._stream]

    @property
    def is_nms(self) -> bool:
        return self._stream.order.startswith("HAILO_NMS")

    def set_format_type(self, type: FormatType) -> None:
        self._stream.type = type.name

    def set_format_order(self, order: FormatOrder) -> None:
        self._stream.order = order.name


class InferModel:
    """A file on a VDevice, before it is configured."""

    def __init__(self, hef: _library.Hef, ownership: _library.Ownership) -> None:
        self._hef = hef
        self._ownership = ownership

    @property
    def input_names(self) -> list[str]:
        return [stream.name for stream in self._hef.inputs]

    @property
    def output_names(self) -> list[str]:
        return [stream.name for stream in self._hef.outputs]

    @property
    def inputs(self) -> list[InferStream]:
        return [InferStream(stream) for stream in self._hef.inputs]

    @property
    def outputs(self) -> list[InferStream]:
        return [InferStream(stream) for stream in self._hef.outputs]

    def input(self, name: str = "") -> InferStream:
        return _named(self.inputs, name)

    def output(self, name: str = "") -> InferStream:
        return _named(self.outputs, name)

    def set_batch_size(self, batch_size: int) -> None:
        pass

    def set_power_mode(self, power_mode: HailoPowerMode) -> None:
        pass

    def configure(self) -> ConfiguredInferModel:
        if CHIP.configure_fails:
            raise exception_for(CHIP.configure_fails)
        if not CHIP.present:
            raise exception_for("HAILO_COMMUNICATION_CLOSED")
        CHIP.configured += 1
        return ConfiguredInferModel(_library.Pipeline(self._hef, self._ownership), self)


def _named(streams: Sequence[InferStream], name: str) -> InferStream:
    found = [stream for stream in streams if stream.name == name or (name == "" and len(streams) == 1)]
    if not found:
        raise exception_for("HAILO_NOT_FOUND")
    return found[0]


class BoundStream:
    """One buffer of one frame."""

    def __init__(self) -> None:
        self._buffer: Buffer | None = None

    def set_buffer(self, buffer: Buffer) -> None:
        if not buffer.flags.c_contiguous:
            raise HailoRTException("Buffer must be C_CONTIGUOUS")
        if not buffer.flags.writeable:
            raise ValueError("array is not writeable")  # pybind11, for inputs too
        self._buffer = buffer

    def get_buffer(self, tf_format: bool | None = False) -> Buffer | None:
        return self._buffer


class Bindings:
    """The buffers of one frame."""

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._inputs = {name: BoundStream() for name in inputs}
        self._outputs = {name: BoundStream() for name in outputs}

    def input(self, name: str = "") -> BoundStream:
        return _bound(self._inputs, name)

    def output(self, name: str = "") -> BoundStream:
        return _bound(self._outputs, name)


def _bound(streams: Mapping[str, BoundStream], name: str) -> BoundStream:
    if name == "" and len(streams) == 1:
        return next(iter(streams.values()))
    if name not in streams:
        raise exception_for("HAILO_NOT_FOUND")
    return streams[name]


class AsyncInferCompletionInfo:
    """How a job ended."""

    def __init__(self, exception: HailoRTException | None) -> None:
        self.exception = exception


class AsyncInferJob:
    """A job under way."""

    def __init__(self, done: threading.Event) -> None:
        self._done = done

    def wait(self, timeout_ms: int) -> None:
        if not self._done.wait(timeout_ms / 1000):
            raise exception_for("HAILO_TIMEOUT")


class ConfiguredInferModel:
    """A model on the chip."""

    def __init__(self, pipeline: _library.Pipeline, infer_model: InferModel) -> None:
        self._infer_model = infer_model  # kept when the context is left
        self._pipeline: _library.Pipeline | None = pipeline

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.drop()

    def create_bindings(
        self, input_buffers: Mapping[str, Buffer] | None = None, output_buffers: Mapping[str, Buffer] | None = None
    ) -> Bindings:
        hef = self._alive.hef
        bindings = Bindings([stream.name for stream in hef.inputs], [stream.name for stream in hef.outputs])
        for name, buffer in (input_buffers or {}).items():
            bindings.input(name).set_buffer(buffer)
        for name, buffer in (output_buffers or {}).items():
            bindings.output(name).set_buffer(buffer)
        return bindings

    def get_async_queue_size(self) -> int:
        return CHIP.queue_size

    def wait_for_async_ready(self, timeout_ms: int = 1000, frames_count: int = 1) -> None:
        _raise_if(self._alive.wait_for_room(frames_count, timeout_ms / 1000))

    def run(self, bindings: Sequence[Bindings], timeout: int) -> None:
        self.run_async(bindings).wait(timeout)

    def run_async(self, bindings: Sequence[Bindings], callback: Callable[..., None] | None = None) -> AsyncInferJob:
        done = threading.Event()

        def ended(status: str) -> None:
            if callback is not None:
                callback(completion_info=AsyncInferCompletionInfo(exception_for(status) if status else None))
            done.set()

        frames = [
            _library.Frame(
                {name: stream.get_buffer(None) for name, stream in binding._inputs.items()},
                {name: stream.get_buffer(None) for name, stream in binding._outputs.items()},
            )
            for binding in bindings
        ]
        _raise_if(self._alive.push(frames, ended))
        return AsyncInferJob(done)

    def set_scheduler_timeout(self, timeout_ms: int) -> None:
        pass

    def set_scheduler_threshold(self, threshold: int) -> None:
        pass

    def set_scheduler_priority(self, priority: int) -> None:
        pass

    def activate(self) -> None:
        raise exception_for("HAILO_INVALID_OPERATION")  # the scheduler is on

    def deactivate(self) -> None:
        raise exception_for("HAILO_INVALID_OPERATION")

    def shutdown(self) -> None:
        self._alive.shut_down("HAILO_STREAM_ABORT")

    @property
    def _alive(self) -> _library.Pipeline:
        assert self._pipeline is not None, "used after its context was left"
        return self._pipeline


def _raise_if(status: str) -> None:
    if status:
        raise exception_for(status)
