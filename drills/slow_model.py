"""Makes drills/slow-edge.onnx: a model that computes for tens of milliseconds from a file of a kilobyte.

    python -m drills.slow_model

It is what the overload drill saturates a device with: a loop of small products, so that its time depends on the
device's single core rather than on how wide its vector unit is. Its matrix is made inside the graph, by a formula.
Needs the package onnx, which nothing else here does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FILE = Path(__file__).with_name("slow-edge.onnx")
WIDTH = 64
TURNS = 20_000
OPSET = 17
IR_VERSION = 8


def slow_model() -> onnx.ModelProto:
    """`vector` float32 [1, 64] → `score` float32 [1]: twenty thousand times a product with a matrix, and a tanh."""
    constants = {
        "turns": np.array(TURNS, np.int64),
        "always": np.array(True),
        "from": np.array(0.0, np.float32),
        "to": np.array(float(WIDTH * WIDTH), np.float32),
        "step": np.array(1.0, np.float32),
        "square": np.array([WIDTH, WIDTH], np.int64),
    }
    nodes = [
        helper.make_node("Range", ["from", "to", "step"], ["numbers"]),
        helper.make_node("Sin", ["numbers"], ["waves"]),
        helper.make_node("Reshape", ["waves", "square"], ["matrix"]),
        helper.make_node("Loop", ["turns", "always", "vector"], ["state"], body=_turn()),
        helper.make_node("ReduceMean", ["state"], ["score"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, WIDTH])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hybrid-router")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _turn() -> onnx.GraphProto:
    """The loop's body: the state times the outer graph's matrix, squashed."""
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "matrix"], ["product"]),
            helper.make_node("Tanh", ["product"], ["after"]),
            helper.make_node("Identity", ["go_on"], ["still_go_on"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [1, WIDTH]),
        ],
        [
            helper.make_tensor_value_info("still_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [1, WIDTH]),
        ],
    )


if __name__ == "__main__":
    FILE.write_bytes(slow_model().SerializeToString(deterministic=True))
