"""A time limit that costs nothing where there is nothing to wait for."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, awaitable: Awaitable[T], limits: set[asyncio.Timeout] | None = None) -> T:
    """Awaits with a time limit.

    The limit is only set once the awaitable really waits: a call that answers at once, as most local ones do, would
    spend more on the timer than on its work.

    Args:
        seconds: The limit, from now.
        awaitable: What to await.
        limits: Holds the limit for as long as it is waited for, so that somebody else can bring it forward.

    Raises:
        TimeoutError: The limit passed first; what was awaited is cancelled.
    """
    steps: Any = awaitable.__await__()
    try:
        waits_for = next(steps)
    except StopIteration as done:
        value: T = done.value
        return value
    async with asyncio.timeout(seconds) as limit:
        if limits is not None:
            limits.add(limit)
        try:
            rest: T = await _go_on(steps, waits_for)
        finally:
            if limits is not None:
                limits.discard(limit)
        return rest


@types.coroutine
def _go_on(steps: Any, waits_for: object) -> Generator[Any, Any, Any]:
    """Drives an awaitable on from where it first waited."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                waits_for = steps.throw(error)
            else:
                waits_for = steps.send(sent)
    except StopIteration as done:
        return done.value
