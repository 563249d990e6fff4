"""The digits model as an MLServer runtime."""

from __future__ import annotations

from typing import Any

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_session import digits


class Digits(MLModel):
    """Runs on the event loop: handing 11 µs of work to a thread would cost several times as much."""

    async def load(self) -> bool:
        """Opens the model."""
        self._session: Any = digits()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers label and probabilities of each row of pixels."""
        pixels = NumpyCodec.decode_input(payload.inputs[0])
        label, probabilities = self._session.run(["label", "probabilities"], {"pixels": pixels})
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            id=payload.id,
            outputs=[
                NumpyCodec.encode_output("label", label),
                NumpyCodec.encode_output("probabilities", probabilities),
            ],
        )
