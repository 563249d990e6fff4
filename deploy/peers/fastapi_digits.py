"""The digits model behind a hand-written FastAPI route, `async def` or `def`: `fastapi_digits.py async 8080`.

What somebody writes who needs one model served and no more: pydantic models in and out, uvicorn's fast parts, no log of
requests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from onnx_session import digits
from pydantic import BaseModel

session = digits()


class Request(BaseModel):
    """Rows of 64 pixels each."""

    pixels: list[list[float]]


class Response(BaseModel):
    """For each row the digit that it is, and how likely each would be."""

    label: list[int]
    probabilities: list[list[float]]


def answer(request: Request) -> Response:
    """Runs the model on the rows."""
    label, probabilities = session.run(
        ["label", "probabilities"], {"pixels": np.array(request.pixels, dtype=np.float32)}
    )
    return Response(label=label.tolist(), probabilities=probabilities.tolist())


async def answer_on_the_loop(request: Request) -> Response:
    """The same on the event loop."""
    return answer(request)


async def ready() -> dict[str, bool]:
    """Says that it is there."""
    return {"ready": True}


def make_app(route: Callable[..., Any]) -> FastAPI:
    """An application with this route as `/infer`."""
    app = FastAPI()
    app.post("/infer")(route)
    app.get("/v2/models/digits/ready")(ready)
    return app


if __name__ == "__main__":
    style, port = sys.argv[1:]
    uvicorn.run(
        make_app(answer_on_the_loop if style == "async" else answer),
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
