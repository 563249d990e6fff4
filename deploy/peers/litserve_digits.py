"""The digits model in LitServe: `litserve_digits.py 8080`.

One worker and no batches, for a batch of rows takes longer to put together than to run. Neither `enable_async` nor a
second server nor one that is a thread is faster. `fast_queue` is asked for, as the documentation has it, but changes
nothing in LitServe 0.2.19, which never comes to use ZeroMQ; if it did, it would need about a quarter less CPU time.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve as ls
import numpy as np
from onnx_session import digits


class Digits(ls.LitAPI):
    """Opens the model in the worker's process and runs it there.

    Two methods have no annotations: LitServe would make them the types of its route.
    """

    def setup(self, device: str) -> None:
        """Opens the model."""
        self._session: Any = digits()

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Rows of 64 pixels each."""
        return np.array(request["pixels"], dtype=np.float32)

    def predict(self, x: Any) -> list[Any]:
        """Runs the model on the rows."""
        outputs: list[Any] = self._session.run(["label", "probabilities"], {"pixels": x})
        return outputs

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        """For each row the digit that it is, and how likely each would be."""
        label, probabilities = output
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    ls.LitServer(
        Digits(api_path="/infer"), accelerator="cpu", workers_per_device=1, timeout=False, fast_queue=True
    ).run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
