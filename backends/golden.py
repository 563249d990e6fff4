"""Golden inputs: what a model must answer before it is trusted with requests, stored beside the model file.

Invariants:
- The file says what is right, not what one version answered: where it was made with labels, any version that knows
  the labels passes, retrained or quantised.
- A golden file that cannot be read, or is another model's, fails: it never passes by default.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.whole_file import write_whole
from router.errors import BackendError, BackendUnavailable
from router.model import Tensor, Tensors

SUFFIX = ".golden.npz"
IN, OUT, TOLERANCE = "inputs.", "outputs.", "tolerance"
MOST_BYTES = 64 << 20


class GoldenFailed(Exception):
    """The model does not answer its golden inputs as it must, or they cannot be read; the message says how."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Golden inputs and what must be answered.

    Args:
        inputs: The input tensors; rows are along the first dimension.
        outputs: Those outputs that are looked at.
        tolerance: How far an element of a floating-point output may be off.
    """

    inputs: Tensors
    outputs: Tensors
    tolerance: float

    @property
    def size(self) -> int:
        """The inputs' bytes."""
        return sum(tensor.nbytes for tensor in self.inputs.values())

    def check(self, answered: Mapping[str, Tensor]) -> None:
        """Holds a model's answers against what they must be.

        Raises:
            GoldenFailed: An element is wrong.
        """
        for name, right in self.outputs.items():
            given = answered.get(name)
            if given is None or given.shape != right.shape:
                shape = "nothing" if given is None else f"shape {list(given.shape)}"
                raise GoldenFailed(f"its golden inputs give {shape} for {name}; it must be {list(right.shape)}")
            if np.issubdtype(right.dtype, np.floating):
                wrong = ~np.isclose(given, right, rtol=0.0, atol=self.tolerance, equal_nan=True)
                off = f", by up to {np.abs(given - right)[wrong].max():.3g}" if wrong.any() else ""
            else:
                wrong, off = given != right, ""
            if wrong.any():
                rows = np.count_nonzero(wrong.reshape(len(wrong), -1).any(axis=1)) if wrong.ndim else 1
                of = len(right) if right.ndim else 1
                raise GoldenFailed(f"{name} is wrong for {rows} of {of} golden inputs{off}")

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all; equal content gives equal bytes."""
        arrays = {IN + name: tensor for name, tensor in self.inputs.items()}
        arrays |= {OUT + name: tensor for name, tensor in self.outputs.items()}
        arrays[TOLERANCE] = np.array(self.tolerance)
        # numpy.savez stamps the time of day into the archive.
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w") as file:
                    np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
        write_whole(path, content.getvalue())


@contextmanager
def proving(file: str) -> Iterator[None]:
    """Whatever goes wrong meanwhile is why this model file is not trusted.

    Raises:
        BackendUnavailable: Golden inputs cannot be read, or are answered wrongly or not at all.
    """
    try:
        yield
    except GoldenFailed as error:
        raise BackendUnavailable(f"{file} is not trusted: {error}.") from None
    except BackendError as error:
        raise BackendUnavailable(f"{file} is not trusted: its golden inputs fail: {error.detail}") from None


def golden_path(model: Path) -> Path:
    """Where a model file's golden inputs are if nothing else is said."""
    return model.with_suffix(SUFFIX)


def read_golden(path: Path) -> Golden:
    """Reads a golden file.

    Raises:
        GoldenFailed: It is missing, or is none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise GoldenFailed(f"the golden inputs {path} cannot be read: {error.strerror}") from None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise GoldenFailed(f"{path} does not hold golden inputs: {error}") from None
    inputs = {name.removeprefix(IN): tensor for name, tensor in found.items() if name.startswith(IN)}
    outputs = {name.removeprefix(OUT): tensor for name, tensor in found.items() if name.startswith(OUT)}
    if not inputs or not outputs:
        raise GoldenFailed(f"{path} does not hold golden inputs: it has {', '.join(found) or 'nothing'}")
    for name, tensor in found.items():
        if tensor.dtype.kind not in "biuf" or not tensor.size:  # of bfloat16, the file keeps bare bytes
            raise GoldenFailed(f"{path} cannot be used: {name} is {tensor.dtype} {list(tensor.shape)}, not numbers")
    tolerance = found.get(TOLERANCE, np.array(0.0))
    if tolerance.size != 1 or tolerance.dtype.kind != "f" or not 0 <= float(tolerance.item()) < np.inf:
        raise GoldenFailed(f"{path} does not hold golden inputs: its tolerance is not a number of at least 0")
    return Golden(inputs, outputs, float(tolerance.item()))
