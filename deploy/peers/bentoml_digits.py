"""The digits model as a BentoML service: `bentoml serve bentoml_digits:Digits --host 127.0.0.1 --port 8080`.

One worker without metrics and log of requests. A plain `def`, which BentoML runs in a thread, is slower; an answer that
is a dict rather than a model is too, and taking a tensor rather than lists makes no difference.
"""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
from onnx_session import digits
from pydantic import BaseModel


class Answer(BaseModel):
    """For each row the digit that it is, and how likely each would be."""

    label: list[int]
    probabilities: list[list[float]]


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Digits:
    """Runs on the event loop: handing 11 µs of work to a thread would cost several times as much."""

    def __init__(self) -> None:
        self._session: Any = digits()

    @bentoml.api
    async def infer(self, pixels: list[list[float]]) -> Answer:
        """Answers label and probabilities of each row of pixels."""
        label, probabilities = self._session.run(
            ["label", "probabilities"], {"pixels": np.array(pixels, dtype=np.float32)}
        )
        return Answer(label=label.tolist(), probabilities=probabilities.tolist())
