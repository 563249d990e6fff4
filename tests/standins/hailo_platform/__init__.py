"""A stand-in for HailoRT's Python package, version 5.2.0, where there is no HAT: its names, signatures and failures.

Only tests put it on the path. A `.hef` is a JSON file here that names an ONNX model (`standin.write_hef`), and ONNX
Runtime computes the answers in float32, one frame at a time.

It shows that the gateway calls HailoRT as HailoRT wants to be called, and what the gateway does when HailoRT fails. It
does not show: what 8-bit weights do to accuracy, how fast a HAT is, whether a real `.hef` loads, how a real chip, its
driver or PCIe behave, how long calls that keep the GIL stop the event loop, or anything about heat and power but what a
test says.
"""

from .pyhailort._device import Device, DvmTypes, PowerMeasurementTypes
from .pyhailort.pyhailort import (
    HEF,
    AsyncInferJob,
    FormatOrder,
    FormatType,
    HailoCommunicationClosedException,
    HailoPowerMode,
    HailoRTException,
    HailoRTStreamAbortedByUser,
    HailoSchedulingAlgorithm,
    VDevice,
)
from .standin import CHIP


class MissingPyHRTLib(Exception):
    """The shared library is not beside the package."""


__version__ = "5.2.0"

if CHIP.import_fails == "library":
    raise MissingPyHRTLib("hailo_platform/pyhailort/ should include a _pyhailort library (_pyhailort*311*.so).")
if CHIP.import_fails == "version":
    raise ImportError(f"_pyhailort version (5.1.1) does not match pyhailort version ({__version__})")

__all__ = [
    "HEF",
    "AsyncInferJob",
    "Device",
    "DvmTypes",
    "FormatOrder",
    "FormatType",
    "HailoCommunicationClosedException",
    "HailoPowerMode",
    "HailoRTException",
    "HailoRTStreamAbortedByUser",
    "HailoSchedulingAlgorithm",
    "PowerMeasurementTypes",
    "VDevice",
]
