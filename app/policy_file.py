"""The policy file on disk and the one in force: reads it, watches it, and lets no bad one take a good one's place."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from watchfiles import awatch

from app.policy_copy import PolicyCopy
from policies.document import MAX_BYTES, PolicyFileError, Problem
from policies.loader import load
from router.engine import DeploymentRefused, Engine

log = logging.getLogger(__name__)

LOOK_EVERY_MS = 2000
"""File systems that send no events, and symlinks that lead elsewhere, are noticed by looking this often."""


@dataclass(frozen=True, slots=True)
class PolicyFileState:
    """What is in force, and what is on disk.

    Args:
        sha256: Digest of the content in force.
        since: When it was put in force (wall clock; for people only).
        text: The content in force.
        problems: What is wrong with the file on disk, if that is another one.
    """

    sha256: str
    since: datetime
    text: str
    problems: tuple[Problem, ...] = ()

    @property
    def file_is_in_force(self) -> bool:
        """Whether what is on disk is what is in force."""
        return not self.problems


class PolicyFile:
    """One policy file, and the engine that it is put in force on.

    Args:
        path: The file.
        last_good: Where a copy of what is in force is kept, to start from when the file is no good.
        engine: The engine.
        now: Gives the wall clock's time.
    """

    def __init__(self, path: Path, last_good: Path, engine: Engine, now: Callable[[], datetime]) -> None:
        self.path = path
        self._copy = PolicyCopy(last_good)
        self._engine = engine
        self._now = now
        self._state: PolicyFileState | None = None
        self._seen: bytes | None = None

    @property
    def state(self) -> PolicyFileState:
        """What is in force, and what is on disk."""
        assert self._state is not None, "start() comes first"
        return self._state

    async def start(self) -> None:
        """Puts the file in force for the first time, or what was in force last if the file is no good.

        Models that cannot be opened do not stop it.

        Raises:
            PolicyFileError: There is no valid file, and nothing valid was in force before.
        """
        copy = await asyncio.to_thread(self._copy.read)
        try:
            content = _read(self.path)
            await self._put_in_force(content, must_open=copy not in (None, content))
        except (PolicyFileError, DeploymentRefused) as error:
            if copy is None:
                raise
            await self._start_from(copy, error)

    async def _start_from(self, copy: bytes, error: PolicyFileError | DeploymentRefused) -> None:
        """Starts from what was in force last, because of an error in the file."""
        log.warning("starting from %s, since %s is no good", self._copy.path, self.path)
        try:
            await self._put_in_force(copy, must_open=False)
        except PolicyFileError:  # another version of this software may have kept it
            if isinstance(error, PolicyFileError):
                raise error from None
            log.warning("%s is no good either", self._copy.path)
            await self._put_in_force(_read(self.path), must_open=False)
            return
        self._seen = None
        self._complain(error.problems if isinstance(error, PolicyFileError) else _refused(error))

    async def watch(self) -> None:
        """Follows the file for ever. Editors replace it, Kubernetes swaps a symlink above it: its folder is watched."""
        while True:
            try:
                folder = self.path.absolute().parent
                async for _ in awatch(
                    folder, recursive=False, debounce=100, rust_timeout=LOOK_EVERY_MS, yield_on_timeout=True
                ):
                    await self.look()
            except (OSError, RuntimeError) as error:
                log.warning("cannot watch %s: %s", self.path, error)
                await asyncio.sleep(LOOK_EVERY_MS / 1000)
                await self.look()

    async def look(self) -> None:
        """Reads the file again, and puts it in force if it is another one and good."""
        await self._look()
        await self._keep()  # a disk that took no copy before may take one now

    async def _look(self) -> None:
        try:
            seen, self._seen = self._seen, None
            content = _read(self.path)
            if content == seen:
                self._seen = seen
                return
            await self._put_in_force(content, must_open=True)
        except PolicyFileError as error:
            self._complain(error.problems)
        except DeploymentRefused as error:
            self._seen = None  # a model file may still arrive
            self._complain(_refused(error))
        except Exception as error:  # whatever a file makes the reader do, what is in force goes on
            log.exception("reading %s failed in a way that nobody foresaw", self.path)
            self._complain((Problem(1, "", f"cannot be put in force: {error}"),))

    async def _put_in_force(self, content: bytes, *, must_open: bool) -> None:
        self._seen = content
        if self._state is not None and _digest(content) == self._state.sha256:
            self._state = replace(self._state, problems=())
            return
        deployment = await asyncio.to_thread(load, content, str(self.path))
        await self._engine.adopt(deployment, must_open=must_open)
        self._state = PolicyFileState(_digest(content), self._now(), content.decode())
        await self._keep()
        log.info("policy file %s is in force, generation %d", self.path, self._engine.snapshot.generation)

    async def _keep(self) -> None:
        await asyncio.to_thread(self._copy.keep, self.state.text.encode())

    def _complain(self, problems: tuple[Problem, ...]) -> None:
        if self.state.problems != problems:
            log.error("%s is not put in force: %s", self.path, "; ".join(map(str, problems)))
        self._state = replace(self.state, problems=problems)


def _refused(error: DeploymentRefused) -> tuple[Problem, ...]:
    return (Problem(1, "models", str(error)),)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyFileError(str(path), [Problem(1, "", f"cannot be read: {error.strerror}")]) from error
