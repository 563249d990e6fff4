"""A model for Triton's Python backend that gives back what it gets, whatever its type."""

from __future__ import annotations

import os
import sys
from typing import Any

if site_packages := os.environ.get("HYBRID_ROUTER_SITE_PACKAGES"):
    sys.path.insert(0, site_packages)

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model; Triton calls the method below by its name."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers every request with its inputs, renamed from `in_...` to `out_...`."""
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(tensor.name().replace("in_", "out_", 1), tensor.as_numpy())
                    for tensor in request.inputs()
                ]
            )
            for request in requests
        ]
