"""Requests for a server that come together are sent as one: who joins, and what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.turn_sender import TurnSender
from router.errors import BackendError, BackendFailed, BackendLost, BackendRejectedInput, BackendTimeout, FailedTogether
from router.model import Tensor, Tensors
from router.types import Reply
from tests.unit.backends.doubling import BAD, Visit, rows_of, tensor_of, visits
from tests.unit.virtual_time import START, in_virtual_time, virtual_loop

CALL_S = 1.0


class Server:
    """Doubles what it is asked, after a while, and remembers it."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.deadlines: list[float] = []
        self.error: BackendError | None = None
        self.seconds = CALL_S

    async def __call__(self, inputs: Tensors, deadline: float, late: Callable[[float], None]) -> dict[str, Tensor]:
        x = inputs["x"]
        self.late = late
        self.calls.append(x[:, 0].tolist())
        self.deadlines.append(deadline)
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        if (x == BAD).any():
            raise BackendRejectedInput("bad")
        return {"y": x * 2}


def sender(server: Server, rows: int = 8) -> TurnSender:
    def reply(outputs: dict[str, Tensor], seconds: float) -> Reply:
        return Reply(outputs, 0.0, seconds, 0.0)

    made = TurnSender(server, reply, 1 << 20, virtual_loop().time)
    made.most_rows = rows
    return made


def asking(
    to: TurnSender,
    values: list[float],
    deadline: float = START + 1e6,
    late: Callable[[float], None] | None = None,
    width: int = 2,
) -> asyncio.Task[Reply]:
    x = tensor_of(values, width)
    return asyncio.create_task(to.infer({"x": x}, len(x), x.nbytes, deadline, late))


@in_virtual_time
async def test_who_comes_together_is_sent_as_one_call_with_the_most_patient_deadline() -> None:
    server = Server()
    to = sender(server, rows=4)
    asked = [asking(to, [float(n), n + 0.5], deadline=START + 10 + n) for n in range(3)]
    assert [rows_of(await task) for task in asked] == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert server.calls == [[0.0, 0.5, 1.0, 1.5], [2.0, 2.5]]
    assert server.deadlines == [START + 11, START + 12]
    assert virtual_loop().time() == START + CALL_S, "the calls went at the same time"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BackendRejectedInput("no"), FailedTogether),
        (BackendFailed("no"), FailedTogether),
        (BackendLost("no"), BackendLost),
    ],
)
@in_virtual_time
async def test_a_call_of_several_that_fails_tells_them_to_ask_alone_unless_the_server_is_gone(
    error: BackendError, told: type[BackendError]
) -> None:
    server = Server()
    server.error = error
    to = sender(server)
    ended = await asyncio.gather(asking(to, [1.0]), asking(to, [2.0]), return_exceptions=True)
    assert [type(end) for end in ended] == [told, told]
    assert ended[0] is not ended[1]
    (alone,) = await asyncio.gather(asking(to, [1.0]), return_exceptions=True)
    assert type(alone) is type(error)


@in_virtual_time
async def test_each_has_its_own_deadline_and_a_late_answer_is_told() -> None:
    told: list[float] = []
    to = sender(Server())
    short, patient = asking(to, [1.0], START + 0.5, told.append), asking(to, [2.0], late=told.append)
    with pytest.raises(BackendTimeout):
        await short
    assert virtual_loop().time() == START + 0.5
    assert rows_of(await patient) == [4.0]
    assert told == [CALL_S]


@in_virtual_time
async def test_what_nobody_waits_for_any_more_ends_by_itself_and_closing_waits_for_it() -> None:
    server = Server()
    to = sender(server)
    left = [asking(to, [1.0]), asking(to, [2.0])]
    await asyncio.sleep(0.1)
    for task in left:
        task.cancel()
    await asyncio.wait(left)
    server.seconds = 1e5
    stuck = [asking(to, [3.0]), asking(to, [4.0])]
    await asyncio.sleep(0.1)
    await to.close()
    assert virtual_loop().time() < START + 10
    ended = await asyncio.gather(*stuck, return_exceptions=True)
    assert [type(end) for end in ended] == [BackendLost, BackendLost]


@given(st.lists(visits, max_size=20), st.integers(2, 12))
def test_everybody_gets_their_own_rows_or_an_error_by_their_deadline(coming: list[Visit], rows: int) -> None:
    @in_virtual_time
    async def test() -> None:
        server = Server()
        to = sender(server, rows)

        async def ask(visit: Visit) -> tuple[Reply | BaseException, float]:
            task = asking(to, visit.values, virtual_loop().time() + visit.patience, width=visit.width)
            if visit.leaves_after is not None:
                virtual_loop().call_later(visit.leaves_after, task.cancel)
            began = virtual_loop().time()
            (end,) = await asyncio.gather(task, return_exceptions=True)
            return end, virtual_loop().time() - began

        asked = []
        for visit in coming:
            await asyncio.sleep(visit.pause)
            asked.append(asyncio.create_task(ask(visit)))
        for visit, (end, took) in zip(coming, await asyncio.gather(*asked), strict=True):
            assert took <= min(visit.patience, CALL_S)
            if isinstance(end, asyncio.CancelledError):
                assert visit.leaves_after is not None
            elif isinstance(end, BackendTimeout):
                assert visit.patience <= CALL_S
            elif isinstance(end, BackendRejectedInput):
                assert BAD in visit.values
            elif isinstance(end, Reply):
                assert BAD not in visit.values
                np.testing.assert_array_equal(end.outputs["y"], tensor_of(visit.values, visit.width) * 2)
            else:
                assert isinstance(end, FailedTogether)
        assert all(len(call) <= max(rows, 5) for call in server.calls)
        await to.close()
        assert len(asyncio.all_tasks()) == 1

    test()


@in_virtual_time
async def test_an_answer_that_comes_when_the_call_was_given_up_still_teaches_all_who_waited() -> None:
    server, told = Server(), list[float]()
    server.error = BackendTimeout("it did not answer in time")
    to = sender(server)
    ended = await asyncio.gather(*(asking(to, [1.0], late=told.append) for _ in range(3)), return_exceptions=True)
    assert [type(end) for end in ended] == [BackendTimeout] * 3
    server.late(2.5)
    assert told == [2.5] * 3
