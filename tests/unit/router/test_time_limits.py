"""A time limit behaves like `asyncio.timeout`, whatever it is put around."""

from __future__ import annotations

import asyncio

import pytest

from router.time_limits import TimeLimits
from tests.unit.virtual_time import in_virtual_time, virtual_loop


async def after(seconds: float, value: int = 7) -> int:
    await asyncio.sleep(seconds)
    return value


@in_virtual_time
async def test_an_answer_in_time_is_the_answer() -> None:
    started = virtual_loop().time()
    assert await TimeLimits().within(1.0, after(0.4)) == 7
    assert virtual_loop().time() == pytest.approx(started + 0.4)


@in_virtual_time
async def test_an_answer_at_once_needs_no_time_at_all() -> None:
    async def at_once() -> int:
        return 7

    assert await TimeLimits().within(0.0, at_once()) == 7
    assert await TimeLimits().within(-1.0, at_once()) == 7


@in_virtual_time
async def test_what_takes_longer_is_cancelled_at_the_limit() -> None:
    ended: list[type[BaseException]] = []

    async def hanging() -> None:
        try:
            await asyncio.sleep(100)
        except BaseException as error:
            ended.append(type(error))
            raise

    started = virtual_loop().time()
    with pytest.raises(TimeoutError):
        await TimeLimits().within(0.5, hanging())
    assert virtual_loop().time() == pytest.approx(started + 0.5)
    assert ended == [asyncio.CancelledError]


@pytest.mark.parametrize("seconds", [0.0, 0.1])
@in_virtual_time
async def test_an_error_is_passed_on(seconds: float) -> None:
    async def failing() -> None:
        if seconds:
            await asyncio.sleep(seconds)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await TimeLimits().within(0.5, failing())


@in_virtual_time
async def test_a_caller_that_is_cancelled_cancels_what_it_awaits_and_is_not_told_of_a_timeout() -> None:
    inner = asyncio.get_running_loop().create_future()

    async def waiting() -> None:
        await inner

    task = asyncio.create_task(TimeLimits().within(0.5, waiting()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.cancelled()


@pytest.mark.parametrize(("outer", "inner", "ends"), [(0.2, 0.5, "outer"), (0.5, 0.2, "inner")])
@in_virtual_time
async def test_limits_within_limits_keep_apart(outer: float, inner: float, ends: str) -> None:
    async def limited() -> str:
        try:
            async with asyncio.timeout(inner):
                await asyncio.sleep(10)
        except TimeoutError:
            return "inner"
        return "neither"

    try:
        result = await TimeLimits().within(outer, limited())
    except TimeoutError:
        result = "outer"
    assert result == ends
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@in_virtual_time
async def test_tasks_and_groups_of_tasks_work_inside() -> None:
    async def grouped() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(after(0.1 * number, number)) for number in range(3)]
        return [task.result() for task in tasks]

    assert await TimeLimits().within(1.0, grouped()) == [0, 1, 2]
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        await TimeLimits().within(0.15, grouped())
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("ends_in", ["error", "value"])
@in_virtual_time
async def test_what_makes_something_else_of_its_cancellation_leaves_none_behind(ends_in: str) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            if ends_in == "error":
                raise ZeroDivisionError from None
        return "value"

    try:
        result = await TimeLimits().within(0.2, stubborn())
    except ZeroDivisionError:
        result = "error"
    assert result == ends_in
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
