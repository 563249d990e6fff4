"""KServe's own clients, unmodified, against a gateway: `python kserve_clients.py URL HOST:PORT`, with KServe's Python.

Prints what they saw as JSON, for tests/integration/test_kserve_clients.py to judge.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig

FACTS = {"data_class": "phi"}
ROWS = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (3, 1))


def request(binary: bool, rows: np.ndarray = ROWS, model: str = "digits") -> InferRequest:
    """Three rows of pixels, to be answered on the device."""
    pixels = InferInput("pixels", list(rows.shape), "FP32")
    pixels.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model, [pixels], request_id="seventeen", parameters=dict(FACTS))


def outputs(answer: InferResponse) -> dict[str, Any]:
    """What came back, as the client reads it."""
    return {
        "id": answer.id,
        "model": answer.model_name,
        "outputs": {it.name: [it.datatype, it.shape, it.as_numpy().tolist()] for it in answer.outputs},
    }


async def failing(call: Awaitable[Any]) -> str:
    """The sentence of a call that must fail."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        return str(error)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "it did not fail"


async def over_rest(url: str, extensions: list[str]) -> dict[str, Any]:
    """The REST client."""
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
    try:
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, "digits"),
            "unknown_ready": await client.is_model_ready(url, "nonsense"),
            "json": outputs(await client.infer(url, request(binary=False), "digits")),
            "binary": outputs(await client.infer(url, request(binary=True), "digits"))
            if "binary_tensor_data" in extensions
            else None,
            "unknown": await failing(client.infer(url, request(binary=False), "nonsense")),
            "wrong_shape": await failing(client.infer(url, request(binary=False, rows=ROWS[:, :63]), "digits")),
        }
    finally:
        await client.close()


async def over_grpc(address: str) -> dict[str, Any]:
    """The gRPC client."""
    async with InferenceGRPCClient(address, timeout=20) as client:
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready("digits"),
            "json": outputs(await client.infer(request(binary=False))),
            "binary": outputs(await client.infer(request(binary=True))),
            "unknown": await failing(client.infer(request(binary=True, model="nonsense"))),
            "wrong_shape": await failing(client.infer(request(binary=True, rows=ROWS[:, :63].copy()))),
        }


async def main(url: str, address: str) -> None:
    """Prints what both clients saw."""
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        extensions = (await http.get(f"{url}/v2")).json()["extensions"]
    print(json.dumps({"rest": await over_rest(url, extensions), "grpc": await over_grpc(address)}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
