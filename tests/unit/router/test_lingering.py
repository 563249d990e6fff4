"""Only who stays is told of, once, and in good time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.lingering import GRACE_S, Lingering
from tests.unit.virtual_time import NothingWillEverHappen, VirtualTimeLoop, virtual_loop


@given(st.lists(st.tuples(st.floats(0, 0.05), st.floats(0, 0.05)), max_size=20))
def test_who_stays_is_told_of_once_and_who_does_not_never(visits: list[tuple[float, float]]) -> None:
    told: dict[int, float] = {}

    async def run() -> dict[int, tuple[float, float]]:
        lingering: Lingering[int] = Lingering(lambda entry: told.update({entry: virtual_loop().time()}))
        stays: dict[int, tuple[float, float]] = {}

        async def visit(number: int, after: float, stay: float) -> None:
            await asyncio.sleep(after)
            came = virtual_loop().time()
            lingering.enter(number)
            await asyncio.sleep(stay)
            lingering.leave(number)
            stays[number] = came, virtual_loop().time()

        async with asyncio.TaskGroup() as group:
            for number, (after, stay) in enumerate(visits):
                group.create_task(visit(number, after, stay))
        return stays

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        stays = runner.run(run())
    for number, (came, left) in stays.items():
        if number in told:
            assert came + GRACE_S <= told[number] + 1e-9
            assert told[number] <= min(left, came + 2 * GRACE_S) + 1e-9
        else:
            assert left - came <= 2 * GRACE_S + 1e-9


def test_nothing_ticks_when_nobody_is_there() -> None:
    async def pass_through_and_wait_for_ever() -> None:
        lingering: Lingering[int] = Lingering(lambda entry: None)
        lingering.enter(1)
        lingering.leave(1)
        await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner, pytest.raises(NothingWillEverHappen):
        runner.run(pass_through_and_wait_for_ever())
