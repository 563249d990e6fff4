"""A model that doubles what it is given, and requests that come, leave and are bad: for the tests of batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from backends.batch import Stop
from router.errors import BackendFailed
from router.model import Tensor, Tensors
from router.types import Reply

RUN_S = 1.0
BAD = 13.0
"""A value that the model fails on."""


@dataclass
class Flag:
    """Stands for ONNX Runtime's RunOptions."""

    terminate: bool = False


@dataclass
class Model:
    """Doubles its input, one run at a time, and remembers what it was asked; follows the batcher's `Run`."""

    runs: list[list[float]] = field(default_factory=list)
    stopped: int = 0

    def __call__(self, inputs: Tensors, size: int, stop: Stop | None) -> tuple[dict[str, Tensor], float]:
        """Fails on `BAD` and where it is stopped."""
        x = inputs["x"]
        assert size == x.nbytes
        if stop is not None and stop.terminate:
            self.stopped += 1
            raise BackendFailed("stopped")
        self.runs.append(x[:, 0].tolist())
        if (x == BAD).any():
            raise BackendFailed("bad")
        return {"y": x * 2, "row": np.arange(len(x))}, RUN_S


def tensor_of(values: list[float], width: int = 2, dtype: type = np.float32) -> Tensor:
    """A row for each value, which fills it."""
    return np.repeat(np.array(values, dtype)[:, None], width, axis=1)


def rows_of(reply: Reply) -> list[float]:
    """The first element of each row of the answer."""
    column: list[float] = reply.outputs["y"][:, 0].tolist()
    return column


@dataclass(frozen=True)
class Visit:
    """A request of a property test: when it comes, what with, when its caller leaves, when it is due."""

    pause: float
    values: list[float]
    width: int
    leaves_after: float | None
    patience: float


quarters = st.integers(0, 8).map(lambda n: n / 4 + 0.01)
visits = st.builds(
    Visit,
    st.sampled_from([0.0, 0.0, 0.0, 0.25, 0.5, 1.0, 3.0]),
    st.lists(st.sampled_from([1.0, 2.0, 3.0, BAD]), min_size=1, max_size=5),
    st.sampled_from([2, 2, 2, 3]),
    st.none() | quarters,
    st.just(1e6) | quarters,
)
