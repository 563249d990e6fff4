"""Rows of a batch that go separate ways: which are final, which are asked again, and how the answers are merged."""

from __future__ import annotations

import numpy as np

from router.model import ModelSpec, Tensor, Tensors
from router.plan import AcceptIf

Rows = np.ndarray[tuple[int], np.dtype[np.bool_]]


def confident_rows(outputs: Tensors, model: ModelSpec, accept_if: AcceptIf) -> Rows:
    """Which rows of an answer are final.

    Args:
        outputs: The model's outputs.
        model: Its spec. A row's confidence is its `confidence_output`, or the greatest value of it along the last axis.
        accept_if: The threshold.

    Returns:
        bool [N], one per row; of a model that is not batchable bool [1], final only if all of it is.
    """
    assert model.confidence_output is not None, "the policy file's check lets accept_if pass for such models only"
    values = outputs[model.confidence_output]
    final = (values if values.ndim == 1 else values.max(axis=-1)) >= accept_if.confidence
    if not model.batchable:
        return np.array([bool(final.all())])
    return np.asarray(final.reshape(final.shape[0], -1).all(axis=1))


def select_rows(tensors: Tensors, rows: Rows) -> dict[str, Tensor]:
    """The given rows of every tensor, first dimension [N] to [rows.sum()]."""
    return {name: np.ascontiguousarray(tensor[rows]) for name, tensor in tensors.items()}


def merge_rows(held: Tensors, rows: Rows, outputs: Tensors) -> dict[str, Tensor]:
    """The held answer with `rows` of it replaced by `outputs`, in order."""
    merged = {}
    for name, tensor in held.items():
        merged[name] = tensor.copy()
        merged[name][rows] = outputs[name]
    return merged
