"""A stream ends when it is told to, at whatever moment."""

from __future__ import annotations

import asyncio

import pytest

from app.rpc.inference import _Stream
from tests.unit.virtual_time import in_virtual_time


class Silent:
    """The context of a call whose client says nothing."""

    async def read(self) -> bytes:
        """Waits for ever."""
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def write(self, body: bytes) -> None:
        """Never called."""
        raise AssertionError(body)


async def unasked(body: bytes, arrived: float) -> bytes:
    raise AssertionError(body)


@pytest.mark.parametrize("turns", [1, 2, 5])
@in_virtual_time
async def test_a_stream_ends_when_its_reading_is_stopped_however_early(turns: int) -> None:
    stream = _Stream(Silent(), unasked)
    running = asyncio.create_task(stream.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    stream.stop_reading()
    async with asyncio.timeout(1):
        await running
