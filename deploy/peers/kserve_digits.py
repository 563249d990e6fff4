"""The digits model in KServe's model server: `kserve_digits.py --configure_logging=false --http_port=8080`.

Left to itself it logs every request, which costs a fifth of its throughput.
"""

from __future__ import annotations

from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid
from onnx_session import digits


class Digits(Model):
    """Runs on the event loop: handing 11 µs of work to a thread would cost several times as much."""

    def __init__(self) -> None:
        super().__init__("digits", return_response_headers=False)
        self._session: Any = digits()
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """What its metadata says of inputs."""
        return [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """What its metadata says of outputs."""
        return [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ]

    async def predict(
        self, payload: InferRequest, headers: dict[str, str] | None = None, response_headers: Any = None
    ) -> InferResponse:
        """Answers label and probabilities of each row of pixels."""
        pixels = payload.inputs[0].as_numpy()
        outputs = []
        for name, tensor in zip(
            ("label", "probabilities"),
            self._session.run(["label", "probabilities"], {"pixels": pixels}),
            strict=True,
        ):
            output = InferOutput(name, list(tensor.shape), "INT64" if name == "label" else "FP32")
            output.set_data_from_numpy(tensor, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(payload.id or generate_uuid(), self.name, outputs)


if __name__ == "__main__":
    ModelServer(enable_latency_logging=False).start([Digits()])
