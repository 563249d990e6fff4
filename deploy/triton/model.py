"""Triton's Python backend, running one ONNX model on the CPU: one file for every model of the repository.

The model's config.pbtxt says what differs. The ONNX file beside this one is always `model.onnx`, outputs have
the same names in both, and the parameter `decode` set to "image" puts a picture decoder in front.

For drills: while the file named by the variable HYBRID_ROUTER_FAIL_FILE exists, every request is answered with an
internal error, and the model goes on to say that it is ready. Without the variable there is no such switch.

The backend's stub runs an isolated Python that sees neither PYTHONPATH nor an active virtual environment, so
the variable HYBRID_ROUTER_SITE_PACKAGES names the directory that holds numpy, ONNX Runtime and Pillow where
these are not installed system-wide.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

if site_packages := os.environ.get("HYBRID_ROUTER_SITE_PACKAGES"):
    sys.path.insert(0, site_packages)

# ONNX Runtime's official builds report to their maker unless this is set before the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from PIL import Image

IMAGE_SIDE = 8
MAX_ENCODED_BYTES = 4 * 1024 * 1024
MAX_PIXELS = 4096 * 4096
"""A 40 kB PNG can claim to hold a billion pixels: the header is looked at before anything is decoded."""

IMAGE_FORMATS = ("PNG", "JPEG")


class BadImage(ValueError):
    """The bytes are not a picture that this model takes; the message says why."""


def pixels_of(encoded: bytes) -> NDArray[np.float32]:
    """Decode one picture to what the digits model reads.

    Args:
        encoded: a whole PNG or JPEG file.

    Returns:
        float32 [64], row-major 8 x 8, 0 = black, 1 = white.

    Raises:
        BadImage: not a PNG or JPEG, damaged, or too large.
    """
    if len(encoded) > MAX_ENCODED_BYTES:
        raise BadImage(f"the image has {len(encoded)} bytes; at most {MAX_ENCODED_BYTES} are taken")
    try:
        with Image.open(io.BytesIO(encoded), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"the image has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are taken")
            grey = image.convert("L").resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BOX)
    except BadImage:
        raise
    # On damaged files Pillow's decoders raise SyntaxError, struct.error, OSError and more.
    except Exception as error:
        raise BadImage(f"not a readable PNG or JPEG image: {error}") from error
    return np.asarray(grey, dtype=np.float32).reshape(-1) / np.float32(255)


class TritonPythonModel:
    """One instance of a model; Triton calls the three methods below by their names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the ONNX session.

        Args:
            args: Triton's strings: `model_config` (JSON), `model_repository`, `model_version` and others.
        """
        config = json.loads(args["model_config"])
        parameters = config.get("parameters", {})
        self._decodes_images = parameters.get("decode", {}).get("string_value") == "image"
        self._input = config["input"][0]["name"]
        self._outputs = {
            output["name"]: pb_utils.triton_string_to_numpy(output["data_type"]) for output in config["output"]
        }
        self._item_shapes = {output["name"]: tuple(int(size) for size in output["dims"]) for output in config["output"]}
        options = ort.SessionOptions()
        # Triton runs the models side by side already; a pool of threads in each would fight over the cores.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._fail_file = os.environ.get("HYBRID_ROUTER_FAIL_FILE")
        self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._source = self._session.get_inputs()[0].name

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch: one ONNX call for all requests that can be read, an error for each of the others.

        Args:
            requests: Triton's requests, each with its own batch dimension of 1 or more.

        Returns:
            One response per request, in the same order.
        """
        if self._fail_file and os.path.exists(self._fail_file):
            return [pb_utils.InferenceResponse(error=_drilled_error()) for _ in requests]
        responses: list[Any] = [None] * len(requests)
        readable: list[tuple[int, NDArray[np.float32]]] = []
        for position, request in enumerate(requests):
            try:
                readable.append((position, self._read(request)))
            except BadImage as error:
                responses[position] = pb_utils.InferenceResponse(error=_bad_request(str(error)))
        if not readable:
            return responses
        batch = np.concatenate([rows for _, rows in readable])
        results = self._session.run(list(self._outputs), {self._source: batch})
        start = 0
        for position, rows in readable:
            part = slice(start, start + len(rows))
            responses[position] = self._answer([result[part] for result in results])
            start = part.stop
        return responses

    def finalize(self) -> None:
        """Let go of the session before the interpreter does."""
        del self._session

    def _read(self, request: Any) -> NDArray[np.float32]:
        """One request's rows: float32 [n, ...] as the ONNX model takes them."""
        given = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
        if not self._decodes_images:
            return np.asarray(given, dtype=np.float32)
        return np.stack([pixels_of(bytes(encoded)) for encoded in given.reshape(-1)])

    def _answer(self, results: list[NDArray[Any]]) -> Any:
        """A response with each output in the shape that config.pbtxt promises: [n, *dims]."""
        tensors = [
            pb_utils.Tensor(name, result.astype(dtype).reshape(len(result), *self._item_shapes[name]))
            for (name, dtype), result in zip(self._outputs.items(), results, strict=True)
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _drilled_error() -> Any:
    """Triton's error for a fault of its own: gRPC INTERNAL, HTTP 500."""
    return pb_utils.TritonError("failing on purpose, for a drill", pb_utils.TritonError.INTERNAL)


def _bad_request(message: str) -> Any:
    """Triton's error for a request that the caller has to change: gRPC INVALID_ARGUMENT, HTTP 400."""
    return pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
