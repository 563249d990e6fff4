"""Data to calibrate, judge and try models with: arrays named after a model's inputs, and labels if there are any."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.golden import Golden
from router.model import Tensor

LABELS = "labels"


class UnusableData(Exception):
    """The data does not fit the model; the message says how."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows for a model.

    Args:
        inputs: The model's inputs, rows along the first dimension.
        labels: What is right for each row, int64 [N], if that is known.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.inputs.values())))

    def taken(self, rows: Tensor) -> dict[str, Tensor]:
        """The inputs of some rows, by their positions."""
        return {name: tensor[rows] for name, tensor in self.inputs.items()}


def read_samples(path: Path, inputs: Sequence[Any]) -> Samples:
    """Reads an `.npz` file for a model with these inputs, as an ONNX Runtime session lists them.

    Raises:
        UnusableData: It is none, or lacks an input.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UnusableData(f"{path} is no .npz file that can be read: {error}") from None
    names = [node.name for node in inputs]
    if missing := [name for name in names if name not in found]:
        raise UnusableData(f"{path} has {', '.join(found)}; the model also takes {', '.join(missing)}.")
    counts = {len(found[name]) if found[name].ndim else 0 for name in (*names, *({LABELS} & found.keys()))}
    if len(counts) != 1 or 0 in counts:
        raise UnusableData(f"the arrays of {path} must have the same number of rows, and at least one.")
    return Samples({name: found[name] for name in names}, found.get(LABELS))


def predicted_labels(outputs: Mapping[str, Tensor]) -> Tensor | None:
    """The label that a model gives each row: its integer output, or the greatest of the last axis of its first one."""
    for tensor in outputs.values():
        if tensor.ndim == 1 and np.issubdtype(tensor.dtype, np.integer):
            return tensor
    first = next(iter(outputs.values()))
    return first.argmax(axis=-1) if first.ndim == 2 else None


def golden_of(samples: Samples, outputs: Mapping[str, Tensor], rows: int, tolerance: float) -> Golden:
    """Golden inputs: rows that the model is right about, the surest of each label; without labels, the first rows.

    With labels, only the label is to be right, so that another version passes that knows it too. Without, all outputs
    are to be what this version gives, within the tolerance.

    Args:
        samples: What to choose from.
        outputs: What the model gives for all of them.
        rows: How many are wanted.
        tolerance: How far an element of a floating-point output may be off.

    Raises:
        UnusableData: The model gives no labels, or is wrong about every row.
    """
    if samples.labels is None:
        first = np.arange(min(rows, samples.rows))
        return Golden(samples.taken(first), {name: tensor[first] for name, tensor in outputs.items()}, tolerance)
    label_output = next((name for name, it in outputs.items() if it.ndim == 1 and it.dtype.kind in "iu"), None)
    if label_output is None:
        raise UnusableData("the data has labels, and the model has no integer output to hold them against.")
    sureness = next((it.max(axis=-1) for it in outputs.values() if it.ndim == 2 and it.dtype.kind == "f"), None)
    right = np.flatnonzero(outputs[label_output] == samples.labels)
    if not len(right):
        raise UnusableData("the model is wrong about every row of the data.")
    if sureness is not None:
        right = right[np.argsort(-sureness[right], kind="stable")]
    chosen = np.sort(_spread(right, samples.labels, rows))
    return Golden(samples.taken(chosen), {label_output: outputs[label_output][chosen]}, tolerance)


def _spread(positions: Tensor, labels: Tensor, rows: int) -> Tensor:
    """So many of these positions, the first of each label before the second of any."""
    turn = np.zeros(len(positions), dtype=np.int64)
    for label in np.unique(labels[positions]):
        same = np.flatnonzero(labels[positions] == label)
        turn[same] = np.arange(len(same))
    return positions[np.argsort(turn, kind="stable")[:rows]]
