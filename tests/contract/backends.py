"""The backends under contract, each with the sample models and how it is reached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.hailo import HailoBackend, HailoOptions
from backends.oip_http import OipHttpBackend, OipHttpOptions
from backends.onnx import OnnxBackend, OnnxOptions
from backends.triton import TritonBackend, TritonOptions
from policies.loader import load
from router.deployment import ModelEntry
from router.model import Tensor
from router.ports import Backend, BackendContext, Call, Servable
from router.types import EncodedImage, Payload, nbytes

ROOT = Path(__file__).parents[2]
MODELS_DIR = ROOT / "deploy/models"
MODELS: Mapping[str, ModelEntry] = load((ROOT / "policies/samples/default.yaml").read_bytes()).models
CONTEXT = BackendContext(MODELS_DIR)


@dataclass(frozen=True)
class Subject:
    """A way to run the sample models.

    Args:
        name: Name of the backend in the sample policy file that it stands for.
        kind: Its class.
        options: Options of its kind.
        correct: How many of the 540 held-out digits its model gets right, by deploy/models/accuracy.json.
        context: Where its model files are.
        variants: The variant of each sample model, where it stands for no backend of the sample policy file.
    """

    name: str
    kind: Callable[[Any, BackendContext], Backend]
    options: Any
    correct: int
    context: BackendContext = CONTEXT
    variants: Mapping[str, Any] | None = None

    def backend(self) -> Backend:
        """A new backend of this kind."""
        return self.kind(self.options, self.context)

    def variant(self, model: str) -> Any:
        """Its variant of a sample model."""
        return self.variants[model] if self.variants is not None else MODELS[model].variants[self.name]

    @asynccontextmanager
    async def opened(self, model: str = "digits") -> AsyncIterator[Servable]:
        """A model on a backend of its own, both closed afterwards."""
        backend = self.backend()
        servable = await backend.open(MODELS[model].spec, self.variant(model))
        try:
            yield servable
        finally:
            await servable.close()
            await backend.close()


def onnx() -> Subject:
    """ONNX Runtime in this process."""
    return Subject("edge", OnnxBackend, OnnxOptions(), correct=528)


def triton(url: str) -> Subject:
    """A real Triton at this gRPC address."""
    return Subject("cloud", TritonBackend, TritonOptions(url), correct=533)


def oip_http(url: str) -> Subject:
    """A server at this HTTP address that has the models of the cloud."""
    return Subject("cloud", OipHttpBackend, OipHttpOptions(url), correct=533)


def hailo(models_dir: Path, variants: Mapping[str, Any]) -> Subject:
    """HailoRT's stand-in, with the edge's models as `.hef` files in this folder."""
    return Subject("hat", HailoBackend, HailoOptions(), 528, BackendContext(models_dir), variants)


def call(payload: Payload, request_id: str = "r1") -> Call:
    """A call with this payload, of whose tensors the first dimension is rows."""
    rows = 1 if isinstance(payload, EncodedImage) else len(next(iter(payload.values())))
    return Call(payload, nbytes(payload), rows, request_id, {})


def pixels(rows: Tensor) -> Call:
    """A call for these digits, float32 [N, 64]."""
    return call({"pixels": np.ascontiguousarray(rows, dtype=np.float32)})


def image(content: bytes) -> Call:
    """A call with an image file."""
    return call(EncodedImage(content, "image/png"))
