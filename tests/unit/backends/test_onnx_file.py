"""What a model file says of itself, held against what the onnx package reads; and files that are none."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from backends.onnx_file import NotAModel, digest, read_model_file
from tests.gateway_process import ROOT

MODELS = ROOT / "deploy/models"
EDGE = (MODELS / "digits-edge.onnx").read_bytes()


def save_external(path: Path) -> None:
    """A model with its weights in a file beside it, and an operator of a domain of its own."""
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x", "y")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Gelu", ["h"], ["y"], domain="com.microsoft"),
    ]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], [weights])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


@pytest.mark.parametrize("name", ["digits-edge", "digits-cloud", "embed-edge", "embed-cloud"])
def test_it_reads_what_the_onnx_package_reads(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    found, model = read_model_file(path), onnx.load(path)
    assert found.operators == Counter(node.op_type for node in model.graph.node)
    assert found.opsets == {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    assert (found.file_bytes, found.external, found.external_bytes) == (path.stat().st_size, (), 0)
    assert digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_in_another_file_count_and_are_missed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_external(path)
    found = read_model_file(path)
    assert found.operators == {"MatMul": 1, "com.microsoft:Gelu": 1}
    assert found.opsets == {"ai.onnx": 17, "com.microsoft": 1}
    assert (found.external, found.external_bytes, found.missing) == (("weights.bin",), 64 * 64 * 4, ())
    assert found.needed_bytes > 64 * 64 * 4
    (tmp_path / "weights.bin").unlink()
    assert read_model_file(path).missing == ("weights.bin",)


@given(content=st.one_of(st.binary(max_size=200), st.integers(0, len(EDGE) - 1).map(lambda end: EDGE[:end])))
def test_what_is_no_model_or_cut_short_never_fails_in_another_way(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        found = read_model_file(path)
    except NotAModel:
        return
    assert found.opsets
