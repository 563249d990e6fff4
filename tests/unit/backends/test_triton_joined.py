"""Requests for a model on Triton that come together go there as one, within bounds: with a stand-in for the channel."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from backends.server import ServerVariant
from backends.triton import JOINED_S, TritonServable
from router.ports import Call
from router.types import nbytes
from tests.unit.backends.test_triton import SPEC, Stub, answer, served_by


class Echo(Stub):
    """A server that answers each row with its first element, and says that a row takes it so long."""

    def __init__(self, row_s: float, max_rows: int = 64) -> None:
        super().__init__(None, max_rows)
        self._row_ns = int(row_s * 1e9)
        self._rows = 0

    async def ask(self, method: str, message: bytes, deadline: float) -> bytes:
        if method == "ModelStatistics":
            self.says[method] = service_pb2.ModelStatisticsResponse()
            model = self.says[method].model_stats.add(name="m", inference_count=self._rows)
            model.inference_stats.success.count = len(self.requests)
            model.inference_stats.compute_infer.ns = self._rows * self._row_ns
        return await super().ask(method, message, deadline)

    async def ask_to_the_end(self, method: str, message: bytes, deadline: float, late: object) -> bytes:
        request = service_pb2.ModelInferRequest.FromString(message)
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(-1, 2)
        self.response = answer(shape=(len(x),), raw=x[:, 0].tobytes())
        self._rows += len(x)
        return await super().ask_to_the_end(method, message, deadline, late)


async def came_together(row_s: float, max_rows: int = 64, **more: Any) -> list[int]:
    """How many rows each request to the server had, when ten came at once."""
    stub = Echo(row_s, max_rows)
    servable = TritonServable(served_by(stub), SPEC, ServerVariant("m", "1"))
    deadline = time.monotonic() + 5
    for synthetic in (True, False):
        await servable.probe(deadline, synthetic=synthetic)
    stub.requests.clear()

    async def ask(value: float) -> None:
        payload = {"x": np.full((1, 2), value, np.float32)}
        call = Call(
            payload, nbytes(payload), 1, f"r{value}", more.get("parameters", {}), alone=more.get("alone", False)
        )
        reply = await servable.infer(call, deadline)
        assert reply.outputs["y"].tolist() == [value]

    await asyncio.gather(*(ask(value) for value in range(10)))
    await servable.close()
    return [request.inputs[0].shape[0] for request in stub.requests]


async def test_requests_that_come_together_are_sent_as_one() -> None:
    assert await came_together(row_s=0.0001) == [1, 9], "the first does not wait to see who else comes"


async def test_no_more_are_sent_together_than_the_server_takes_or_computes_in_a_few_milliseconds() -> None:
    assert await came_together(row_s=0.0001, max_rows=4) == [1, 4, 4, 1]
    assert await came_together(row_s=JOINED_S / 3.5) == [1, 3, 3, 3]
    assert await came_together(row_s=JOINED_S / 1.5) == [1] * 10


@pytest.mark.parametrize("more", [{"parameters": {"sequence_id": 7}}, {"alone": True}])
async def test_who_has_parameters_or_failed_with_others_is_sent_alone(more: dict[str, Any]) -> None:
    assert await came_together(row_s=0.0001, **more) == [1] * 10


async def test_a_probe_shares_no_call_with_users() -> None:
    stub = Echo(row_s=0.0001)
    servable = TritonServable(served_by(stub), SPEC, ServerVariant("m", "1"))
    deadline = time.monotonic() + 5
    for synthetic in (True, False):
        await servable.probe(deadline, synthetic=synthetic)
    stub.requests.clear()
    payload = {"x": np.ones((1, 2), np.float32)}
    calls = [Call(payload, nbytes(payload), 1, "r", {}) for _ in range(4)]
    await asyncio.gather(*(servable.infer(call, deadline) for call in calls), servable.probe(deadline, synthetic=True))
    assert sorted(request.inputs[0].shape[0] for request in stub.requests) == [1, 1, 3]
