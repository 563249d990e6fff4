"""Versions of a model take turns: with stand-ins for versions and for the disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from backends.versions import Stamp, Versions
from router.errors import BackendUnavailable
from router.ports import Call, Runtime
from router.types import Reply


class Model:
    """A version that says in its times which it is."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.runtime = Runtime("CPU", sha256=f"version {number}")
        self.go_on = asyncio.Event()
        self.closed = 0

    async def infer(self, call: Call, deadline: float) -> Reply:
        await self.go_on.wait()
        return Reply({}, 0.0, 0.0, float(self.number))

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        return None

    async def close(self) -> None:
        self.closed += 1


class Disk:
    """What is on disk, and how loading it goes."""

    def __init__(self) -> None:
        self.stamp: Stamp = ((1, 1, 1),)
        self.load: Callable[[], Model] = lambda: Model(2)
        self.loads = 0

    def put(self, number: int, load: Callable[[], Model]) -> None:
        self.stamp, self.load = ((number, 1, 1),), load

    async def loaded(self) -> Model:
        self.loads += 1
        return await asyncio.to_thread(self.load)


class Subject:
    """Versions of which the first is in force."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.versions = Versions(Model(1), self.disk.loaded, lambda: self.disk.stamp, self.disk.stamp, "model.onnx")

    async def look(self, times: int = 1) -> None:
        """Probes, as the engine does, and lets what that started end."""
        for _ in range(times):
            await self.versions.probe(0.0, synthetic=False)
            if self.versions._loading is not None:
                await self.versions._loading

    async def retired(self) -> None:
        """Waits until all that were to be let go of are."""
        await asyncio.gather(*self.versions._retiring)

    def ask(self) -> asyncio.Task[Reply]:
        return asyncio.create_task(self.versions.infer(Call({}, 0, 1, "r", {}), 0.0))

    @property
    def in_force(self) -> int:
        return self.versions.in_force.number


def refuse(why: str) -> Model:
    raise BackendUnavailable(why)


async def test_nothing_is_loaded_while_nothing_changes() -> None:
    subject = Subject()
    await subject.look(5)
    assert subject.disk.loads == 0


async def test_another_version_takes_over_once_it_was_the_same_for_two_looks() -> None:
    subject = Subject()
    subject.disk.put(2, lambda: Model(2))
    await subject.look()
    assert subject.in_force == 1, "whoever copies it may not be done"
    await subject.look()
    assert subject.in_force == 2
    assert subject.versions.runtime == Runtime("CPU", sha256="version 2", swaps=1)


async def test_a_call_ends_on_the_version_that_it_began_with() -> None:
    subject = Subject()
    first, asked = subject.versions.in_force, subject.ask()
    await asyncio.sleep(0)
    subject.disk.put(2, lambda: Model(2))
    await subject.look(2)
    later = subject.ask()
    subject.versions.in_force.go_on.set()
    assert (await later).compute_s == 2
    first.go_on.set()
    assert (await asked).compute_s == 1


async def test_a_version_that_is_refused_is_told_of_once_and_the_old_one_stays() -> None:
    subject = Subject()
    subject.disk.put(2, lambda: refuse("label is wrong"))
    await subject.look(6)
    assert subject.disk.loads == 1
    assert (subject.in_force, subject.versions.runtime.refusals) == (1, 1)
    assert "version 1" in subject.versions.runtime.problem
    assert "label is wrong" in subject.versions.runtime.problem
    subject.disk.put(3, lambda: Model(1))
    await subject.look(2)
    assert subject.versions.runtime == Runtime("CPU", sha256="version 1", refusals=1), "the same version is no swap"


async def test_whatever_loading_raises_the_old_one_stays(caplog: pytest.LogCaptureFixture) -> None:
    subject = Subject()
    subject.disk.put(2, lambda: Model(1 // 0))
    await subject.look(2)
    assert subject.in_force == 1
    assert "modulo by zero" in subject.versions.runtime.problem
    assert "foresaw" in caplog.text


async def test_what_is_written_while_it_is_read_is_read_again() -> None:
    subject = Subject()

    def overtaken() -> Model:
        subject.disk.put(3, lambda: Model(3))
        return Model(2)

    subject.disk.put(2, overtaken)
    await subject.look(2)
    assert subject.in_force == 1
    await subject.look(2)
    assert subject.in_force == 3


async def test_each_version_that_is_out_of_force_is_closed_once() -> None:
    subject = Subject()
    made = [subject.versions.in_force, Model(2), Model(3)]
    subject.disk.put(2, lambda: made[1])
    await subject.look(2)
    await subject.retired()
    assert [version.closed for version in made] == [1, 0, 0]

    def overtaken() -> Model:
        subject.disk.put(4, lambda: refuse("never asked"))
        return made[2]

    subject.disk.put(3, overtaken)
    await subject.look(2)
    await subject.retired()
    assert [version.closed for version in made] == [1, 0, 1], "the third was written over while it was read"
    await subject.versions.close()
    assert [version.closed for version in made] == [1, 1, 1]


async def test_a_version_that_fails_to_close_is_told_of_and_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(Model):
        async def close(self) -> None:
            raise RuntimeError("the driver is gone")

    subject = Subject()
    subject.disk.put(2, lambda: Stuck(2))
    await subject.look(2)
    subject.disk.put(3, lambda: Model(3))
    await subject.look(2)
    await subject.retired()
    assert subject.in_force == 3
    assert "the driver is gone" in caplog.text
    await subject.versions.close()


async def test_closing_lets_go_of_what_is_being_loaded() -> None:
    subject = Subject()
    go_on = threading.Event()

    def slow() -> Model:
        go_on.wait(10)
        return Model(2)

    subject.disk.put(2, slow)
    for _ in range(2):
        await subject.versions.probe(0.0, synthetic=False)
    await asyncio.sleep(0)
    await subject.versions.close()
    go_on.set()
    assert subject.versions._loading is None
    assert subject.disk.loads == 1
