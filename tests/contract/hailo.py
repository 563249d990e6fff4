"""The HAT's backend in the hands of a test: opened on the stand-in, called, probed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from backends.hailo import HailoBackend, HailoOptions, HailoServable, HailoVariant
from backends.versions import Versions
from router.errors import BackendError, BackendUnavailable
from router.ports import BackendContext, Servable
from router.types import Reply
from tests.contract.backends import MODELS, pixels

DIGITS = MODELS["digits"].spec
EMBED = MODELS["embed"].spec
ZEROS = np.zeros((1, 64), np.float32)


@asynccontextmanager
async def backend(folder: Path) -> AsyncIterator[HailoBackend]:
    made = HailoBackend(HailoOptions(), BackendContext(folder))
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def opened(folder: Path, variants: Mapping[str, HailoVariant]) -> AsyncIterator[Versions[HailoServable]]:
    """The digits, on a backend of their own."""
    async with backend(folder) as made:
        servable = await made.open(DIGITS, variants["digits"])
        try:
            yield servable
        finally:
            await servable.close()


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


async def works(servable: Servable) -> Reply:
    return await servable.infer(pixels(ZEROS), soon())


async def until_it_works(servable: Servable) -> None:
    """Probes as the engine does, until one passes."""
    async with asyncio.timeout(10):
        while True:
            try:
                assert await servable.probe(soon(), synthetic=True)
            except BackendError:
                await asyncio.sleep(0.01)
            else:
                return


async def refusal(folder: Path, variant: HailoVariant) -> str:
    """Why the digits cannot be opened."""
    async with backend(folder) as made:
        with pytest.raises(BackendUnavailable) as caught:
            await made.open(DIGITS, variant)
        return caught.value.detail
