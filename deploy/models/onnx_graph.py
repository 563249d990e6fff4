"""Write small feed-forward networks as ONNX graphs, node by node, without a converter.

Old runtimes load what comes out: opset 17, IR version 8, float32 weights, no custom operator.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
SMALLEST_NORM = 1e-12
"""A zero vector has no direction; dividing by this instead of by 0 keeps it a zero vector rather than NaN."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """One dense layer.

    Attributes:
        weights: float32 [inputs, outputs].
        bias: float32 [outputs].
        activation: an ONNX operator's name such as "Relu" or "Tanh", or "" for none.
    """

    weights: Floats
    bias: Floats
    activation: str = ""


@dataclass(slots=True)
class GraphWriter:
    """Collects nodes and constants; each method adds a step and returns the name of its result."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def step(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """Add one operator; `output` names its result, otherwise a name is made up."""
        result = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], name=result, **attributes))
        return result

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant tensor."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def dense(self, source: str, layers: list[Layer]) -> str:
        """Add dense layers one after the other; `source` is float32 [N, inputs of the first layer]."""
        for number, layer in enumerate(layers):
            weights = self.constant(f"weights_{number}", layer.weights.astype(np.float32))
            bias = self.constant(f"bias_{number}", layer.bias.astype(np.float32))
            source = self.step("Gemm", source, weights, bias)
            if layer.activation:
                source = self.step(layer.activation, source)
        return source

    def model(
        self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Close the graph and check it."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, initializer=self.constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], producer_name="hybrid-router")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model


def classifier(name: str, layers: list[Layer], temperature: float) -> onnx.ModelProto:
    """A classifier that also says how sure it is.

    Args:
        name: the graph's name.
        layers: dense layers; the last gives one logit per class.
        temperature: logits are divided by it before the softmax, so that 0.9 means right nine times in ten.

    Returns:
        `pixels` float32 [N, inputs] → `label` int64 [N], `probabilities` float32 [N, classes].
    """
    writer = GraphWriter()
    logits = writer.dense("pixels", layers)
    scale = writer.constant("inverse_temperature", np.array(1.0 / temperature, dtype=np.float32))
    calibrated = writer.step("Mul", logits, scale)
    writer.step("Softmax", calibrated, output="probabilities", axis=1)
    writer.step("ArgMax", calibrated, output="label", axis=1, keepdims=0)
    width, classes = layers[0].weights.shape[0], layers[-1].weights.shape[1]
    return writer.model(
        name,
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", width])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes]),
        ],
    )


def encoder(name: str, layers: list[Layer], image_shape: tuple[int, int]) -> onnx.ModelProto:
    """An encoder whose embeddings have length 1, so that a dot product is their cosine similarity.

    Args:
        name: the graph's name.
        layers: dense layers from the flattened image to the embedding.
        image_shape: rows and columns of the image.

    Returns:
        `image` float32 [N, rows, columns] → `embedding` float32 [N, outputs of the last layer].
    """
    writer = GraphWriter()
    code = writer.dense(writer.step("Flatten", "image", axis=1), layers)
    smallest = writer.constant("smallest_norm", np.array(SMALLEST_NORM, dtype=np.float32))
    norm = writer.step("Max", writer.step("ReduceL2", code, axes=[1], keepdims=1), smallest)
    writer.step("Div", code, norm, output="embedding")
    return writer.model(
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *image_shape])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", layers[-1].weights.shape[1]])],
    )


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model so that equal graphs give equal bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))
