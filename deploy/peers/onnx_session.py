"""The sample model in ONNX Runtime, as every peer opens it: the gateway's own settings."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

DIGITS = Path(__file__).parents[1] / "models/digits-edge.onnx"


def digits() -> ort.InferenceSession:
    """The digits edge model; threads that wait do not spin."""
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 4
    return ort.InferenceSession(str(DIGITS), settings, providers=["CPUExecutionProvider"])
