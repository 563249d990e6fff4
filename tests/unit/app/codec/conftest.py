"""The engine that the codecs decode against; it answers look-ups only, so one does for all tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from router.engine import Engine
from tests.unit.app.codec.front import knowing_engine
from tests.unit.virtual_time import VirtualTimeLoop


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine that knows the models of `front.SPECS`."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        context = knowing_engine()
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))
