"""A .hef on the shared device: opened, held against the model's spec, configured. Everything here blocks.

An error that leaves this file has no cause and no context: their tracebacks would keep HailoRT's objects alive, those
the chip, and whoever keeps the error, as the engine does, would keep everybody off the HAT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.hailo_device import DEVICE, Lease, status_name
from backends.hailo_errors import meaning_of, translated
from backends.hailo_streams import Conversion, HailoTensor, Stream, fitted
from backends.memory import check_room
from router.errors import BackendError, BackendUnavailable
from router.model import ModelSpec

READINGS = 2
"""How many times a .hef is in memory: here, and in HailoRT."""


class Hef:
    """A .hef, read once: whatever is written over the file later, this version of the model stays what it is.

    Args:
        path: The file.
        root: The root of the file system, for what the kernel says of memory.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._root = root
        self._content: bytes | None = None
        self.sha256 = ""

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    def check(self) -> None:
        """Raises BackendUnavailable if there is nothing to read."""
        if self._content is None and not self._path.is_file():
            raise BackendUnavailable(f"The model file {self._path} does not exist.")

    def content(self) -> bytes:
        """The file's bytes.

        Raises:
            BackendUnavailable: It cannot be read, or there is no memory for it.
        """
        if self._content is None:
            try:
                size = self._path.stat().st_size
                check_room(self.name, size, READINGS * size, self._root, "Serve it from the cloud, or free memory.")
                self._content = self._path.read_bytes()
            except OSError as error:
                raise BackendUnavailable(f"{self._path} cannot be read: {error.strerror}.") from None
            self.sha256 = hashlib.sha256(self._content).hexdigest()
        return self._content


@dataclass(frozen=True, slots=True)
class Conversions:
    """How each input and each output of a model crosses to the HAT, by the tensor's name."""

    inputs: Mapping[str, Conversion]
    outputs: Mapping[str, Conversion]


class HailoModel:
    """One .hef, on the VDevice of this process while it is open.

    Args:
        hef: The file.
        spec: The model as applications see it.
        inputs: What the policy file says about its inputs.
        outputs: The same about its outputs.
    """

    def __init__(
        self, hef: Hef, spec: ModelSpec, inputs: Mapping[str, HailoTensor], outputs: Mapping[str, HailoTensor]
    ) -> None:
        self._hef = hef
        self._spec = spec
        self._said = (inputs, outputs)
        self._lease: Lease | None = None
        self._infer_model: Any = None
        self.conversions = Conversions({}, {})

    def open(self) -> None:
        """Takes a lease of the device, reads the file and holds it against the spec.

        Raises:
            BackendUnavailable: It cannot be used as things are.
        """
        self._hef.check()
        self._lease = DEVICE.lease()
        try:
            self._infer_model = self._lease.vdevice.create_infer_model(self._hef.content())
            self.conversions = self._fitted()
            return
        except Exception as error:
            said, lost = self.translated(error).with_traceback(None), self.is_lost(error)
        self.close(lost=lost)
        raise said

    def configure(self) -> tuple[Any, list[Any]]:
        """Puts the model on the chip, or lets the device go. Keeps the GIL for as long as that takes, as HailoRT does.

        Returns:
            The configured infer model, and as many bindings as its queue has places.
        """
        configured = None
        try:
            configured = self._infer_model.configure()
            return configured, [configured.create_bindings() for _ in range(configured.get_async_queue_size())]
        except Exception as error:
            said, lost = self.translated(error).with_traceback(None), self.is_lost(error)
        if configured is not None:
            configured.__exit__(None, None, None)
        self.close(lost=lost)
        raise said

    def is_connected(self) -> bool:
        """Whether a HAT is on the bus, and the device not lost; looks into sysfs, and does not trouble the chip."""
        try:
            return self._lease is not None and not self._lease.worthless and bool(self._lease.sdk.Device.scan())
        except Exception:  # the driver is gone
            return False

    def close(self, *, lost: bool = False) -> None:
        """Lets the device go. Whatever was configured has been dropped before."""
        self._infer_model = None  # it would keep the VDevice alive
        if self._lease is not None:
            self._lease.end(lost=lost)

    def translated(self, error: BaseException) -> BackendError:
        """An error of HailoRT's in the router's words."""
        return translated(error, self._hef.name, self._status_name())

    def is_lost(self, error: BaseException) -> bool:
        """Whether the device has to be opened anew after it."""
        return not isinstance(error, BackendError) and meaning_of(error, self._status_name()).lost

    def _status_name(self) -> Any:
        return status_name(self._lease.sdk) if self._lease is not None else None

    def _fitted(self) -> Conversions:
        if not self._spec.batchable:
            raise BackendUnavailable(
                f"{self._hef.name}: the HAT runs one row at a time, so that every tensor's first dimension must be -1."
            )
        model, (inputs, outputs) = self._infer_model, self._said
        found = Conversions(
            fitted(self._hef.name, self._spec.inputs, inputs, [_stream(stream) for stream in model.inputs]),
            fitted(self._hef.name, self._spec.outputs, outputs, [_stream(stream) for stream in model.outputs]),
        )
        fed = {conversion.stream for conversion in found.inputs.values()}
        unfed = [name for name in model.input_names if name not in fed]
        if unfed or len(fed) < len(found.inputs):
            raise BackendUnavailable(
                f"{self._hef.name}: each input stream needs a tensor; it has {', '.join(model.input_names)}."
            )
        formats = _lease_formats(self._lease)
        for conversion in found.inputs.values():
            model.input(conversion.stream).set_format_type(formats[conversion.stream_dtype.name])
        for conversion in found.outputs.values():
            model.output(conversion.stream).set_format_type(formats[conversion.stream_dtype.name])
        return found


def _lease_formats(lease: Lease | None) -> Mapping[str, Any]:
    assert lease is not None, "the model is open"
    types = lease.sdk.FormatType
    return {"float32": types.FLOAT32, "uint8": types.UINT8, "uint16": types.UINT16}


def _stream(stream: Any) -> Stream:
    infos = stream.quant_infos
    scale, zero_point = (infos[0].qp_scale, infos[0].qp_zp) if infos else (1.0, 0.0)
    return Stream(stream.name, tuple(stream.shape), scale or 1.0, zero_point, bool(stream.is_nms))


def streams_of(path: Path) -> tuple[list[Stream], list[Stream]]:
    """The inputs and outputs of a .hef. Takes a lease of the device meanwhile.

    Raises:
        BackendUnavailable: There is no HailoRT, no HAT, or no such file that it can read.
    """
    lease = DEVICE.lease()
    try:
        model = lease.vdevice.create_infer_model(str(path))
        return [_stream(stream) for stream in model.inputs], [_stream(stream) for stream in model.outputs]
    except Exception as error:
        said = translated(error, path.name, status_name(lease.sdk)).with_traceback(None)
    finally:
        model = None
        lease.end()
    raise said
