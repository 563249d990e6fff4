"""The model of `identity_model`, on a Triton of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.cloud import TritonProcess
from backends.oip import datatype
from router.model import DTYPES
from tests.integration.identity_model import WIDTH, identity_policy, identity_section
from tests.integration.scenario import edited

MODEL = """
import os
import sys

sys.path.insert(0, os.environ["HYBRID_ROUTER_SITE_PACKAGES"])

import triton_python_backend_utils as pb_utils


def copied(tensor):
    name = tensor.name() + "_out"
    if tensor.name() == "bfloat16":  # which numpy does not have
        return pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())
    return pb_utils.Tensor(name, tensor.as_numpy())


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([copied(tensor) for tensor in request.inputs()]) for request in requests]
"""


def save_identity_repository(folder: Path) -> Path:
    """Writes a model repository with it, and returns the folder."""
    version = folder / "identity" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL, encoding="utf-8")
    lines = ['name: "identity"', 'backend: "python"', "max_batch_size: 64", "instance_group [ { kind: KIND_CPU } ]"]
    for kind, suffix in (("input", ""), ("output", "_out")):
        for dtype in DTYPES:
            name = {"BYTES": "STRING"}.get(datatype(dtype), datatype(dtype))
            lines.append(f'{kind} [ {{ name: "{dtype}{suffix}" data_type: TYPE_{name} dims: [ {WIDTH} ] }} ]')
    (folder / "identity" / "config.pbtxt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def cloud_identity_policy(cloud: TritonProcess, file: Path) -> str:
    """A policy file with this model, run in the cloud alone."""

    def change(content: dict[str, Any]) -> None:
        content["backends"]["cloud"]["url"] = cloud.grpc_url
        content["models"] = {
            "identity": identity_section(tuple(DTYPES), {"cloud": {"name": "identity", "version": "1"}})
        }
        content["routes"] = [{"policy": "documents"}]

    return edited(identity_policy(file), change)
