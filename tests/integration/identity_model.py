"""A model that gives back what it gets, one tensor of each dtype: for tests of what crosses the wire."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import yaml
from onnx import TensorProto, helper

from router.model import DTYPES
from tests.gateway_process import DEFAULT_POLICY

WIDTH = 2

ON_DEVICE = tuple(dtype for dtype in DTYPES if dtype != "bfloat16")
"""What one model for ONNX Runtime can have together: bfloat16 and text cannot be."""

_ONNX_TYPES = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def save_identity_model(file: Path, dtypes: Sequence[str] = ON_DEVICE) -> None:
    """Writes it for these dtypes: input `DTYPE` goes to output `DTYPE_out`, each of shape [n, 2]."""
    tensors: dict[str, list[Any]] = {"": [], "_out": []}
    for dtype in dtypes:
        kind = _ONNX_TYPES.get(dtype) or getattr(TensorProto, dtype.upper())
        for suffix, values in tensors.items():
            values.append(helper.make_tensor_value_info(dtype + suffix, kind, ["n", WIDTH]))
    nodes = [helper.make_node("Identity", [dtype], [f"{dtype}_out"]) for dtype in dtypes]
    graph = helper.make_graph(nodes, "identity", tensors[""], tensors["_out"])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


def identity_policy(file: Path) -> str:
    """A policy file with this model, run on the device, and no other."""
    policy = yaml.safe_load(DEFAULT_POLICY.read_text())
    policy["models"] = {"identity": identity_section(ON_DEVICE, {"edge": {"file": file.name}})}
    policy["routes"] = [{"policy": "kiosk"}]
    return yaml.safe_dump(policy, sort_keys=False)


def identity_section(dtypes: Sequence[str], variants: dict[str, Any]) -> dict[str, Any]:
    """What a policy file says of such a model."""

    def specs(suffix: str) -> dict[str, Any]:
        return {dtype + suffix: {"dtype": dtype, "shape": [-1, WIDTH], "allow_nonfinite": True} for dtype in dtypes}

    return {
        "inputs": specs(""),
        "outputs": specs("_out"),
        "slo": {"p95_ms": 50, "deadline_ms": 5000},
        "variants": variants,
    }
