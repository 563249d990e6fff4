"""ONNX Runtime, told to report to nobody before it is loaded. Everybody here takes it from this module."""

from __future__ import annotations

import os

# Its official builds report to their maker unless this is set before the library is loaded, and nothing may leave the
# site that a policy does not send.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

__all__ = ["InvalidArgument", "ort"]
