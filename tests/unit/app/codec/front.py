"""A real engine that knows some models, for the codecs to decode against; nothing is ever opened or asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from router.deployment import Deployment, ModelEntry
from router.engine import Engine
from router.errors import RouterError
from router.model import DTYPES, ImageSpec, ModelSpec, Tensor, TensorSpec
from router.types import InferenceResponse, Route
from tests.unit.samples import MODEL, deployment
from tests.unit.standins import Lab

OUT = {"y": TensorSpec("float32", (-1,))}
SPECS = {
    "one": ModelSpec("one", "1", {"x": TensorSpec("float32", (-1, 2))}, OUT, image=ImageSpec("x", MODEL.image.stages)),  # type: ignore[union-attr]
    "two": ModelSpec("two", "1", {"a": TensorSpec("int64", (-1,)), "b": TensorSpec("bool", (-1, 2))}, OUT),
    **{
        f"{dtype}-{rank}": ModelSpec(
            f"{dtype}-{rank}", "1", {"x": TensorSpec(dtype, (-1,) * rank, allow_nonfinite=False)}, OUT
        )
        for dtype in DTYPES
        for rank in range(1, 5)
    },
}


def all_models() -> Deployment:
    """A deployment that knows all of `SPECS`, on no backend."""
    base = deployment()
    return Deployment(
        {},
        {name: ModelEntry(spec, 0.05, 0.5, {}) for name, spec in SPECS.items()},
        base.policies,
        base.routes,
        base.residency,
    )


@asynccontextmanager
async def knowing_engine() -> AsyncIterator[Engine]:
    """An engine with these models in force."""
    async with Lab().running(all_models()) as engine:
        yield engine


def response(outputs: dict[str, Tensor], specs: dict[str, TensorSpec], **changes: Any) -> InferenceResponse:
    """An answer with these outputs."""
    route = Route("p", "edge", "v1", False, "because", [], 0.0123456)
    for name, value in changes.items():
        setattr(route, name, value)
    return InferenceResponse("r1", ModelSpec("m", "3", {}, specs), outputs, route)


def is_the_callers_fault(error: RouterError) -> bool:
    """Whether a front would answer it with a 4xx, or with 501 for a part of a protocol that is not spoken."""
    return 400 <= error.http_status < 500 or error.http_status == 501
