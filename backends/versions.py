"""Follows a model file: a new version takes over once it has proved itself, and the old one stays until then.

Invariants:
- Requests go to the version in force. A call under way ends on the version that it began with.
- A version takes over only after it was loaded, warmed up and found right, beside the one in force; one that fails any
  of that is closed again and leaves everything as it was. It is not tried again until its files change.
- A file is not looked into before it has been the same for two looks: whoever copies it may not be done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from backends.memory import give_back
from router.errors import BackendError
from router.ports import Call, Runtime
from router.types import Reply

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change of each file; None for one that is not there."""


class Version(Protocol):
    """One version of a model, loaded and found right."""

    def infer(self, call: Call, deadline: float) -> Coroutine[Any, Any, Reply]:
        """Runs it. See `router.ports.Servable`."""
        ...

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Asks whether it works. See `router.ports.Servable`."""
        ...

    async def close(self) -> None:
        """Lets go of what it holds, once the calls on it have ended, or are overdue."""
        ...

    @property
    def runtime(self) -> Runtime:
        """What it is and what it runs on."""
        ...


V = TypeVar("V", bound=Version)


class Versions(Generic[V]):
    """A servable whose model file may be replaced while it serves.

    Args:
        first: The version in force.
        load: Loads the version on disk beside the others; raises BackendError if it is no good.
        stamp: Says when the files on disk are others than before; quick.
        seen: The stamp of the first version.
        label: How the model is called in logs.

    Attributes:
        in_force: The version that requests go to.
    """

    def __init__(
        self,
        first: V,
        load: Callable[[], Coroutine[Any, Any, V]],
        stamp: Callable[[], Stamp],
        seen: Stamp,
        label: str,
    ) -> None:
        self.in_force = first
        self._load = load
        self._stamp = stamp
        self._loaded = self._last_seen = seen
        self._label = label
        self._loading: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._swaps = 0
        self._refusals = 0
        self._problem = ""

    def infer(self, call: Call, deadline: float) -> Coroutine[Any, Any, Reply]:
        """Runs the version in force."""
        return self.in_force.infer(call, deadline)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Probes the version in force, and looks whether there is another on disk."""
        if not synthetic:
            self._look()
        return await self.in_force.probe(deadline, synthetic=synthetic)

    async def close(self) -> None:
        """Lets go of the version in force, of those before it, and of one that is being loaded."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        self._retire(self.in_force)
        del self.in_force
        await asyncio.wait(self._retiring)

    @property
    def runtime(self) -> Runtime:
        """The version in force, how often it changed, and what is wrong with the one on disk."""
        return replace(self.in_force.runtime, swaps=self._swaps, refusals=self._refusals, problem=self._problem)

    def _look(self) -> None:
        """Starts loading what is on disk, if that is another version, and is not being written any more."""
        stamp, before = self._stamp(), self._last_seen
        self._last_seen = stamp
        if stamp == before and stamp != self._loaded and self._loading is None:
            self._loading = asyncio.create_task(self._replace(stamp), name=f"load {self._label}")

    async def _replace(self, stamp: Stamp) -> None:
        try:
            version = await self._load()
            if self._stamp() != stamp:  # it was written while it was read; the next looks see it through
                return self._retire(version)
            self._loaded = stamp
            if version.runtime.sha256 != self.in_force.runtime.sha256:
                self._swaps += 1
                log.info("%s: version %s took over", self._label, version.runtime.sha256[:12])
            self._retire(self.in_force)
            self.in_force, self._problem = version, ""
        except BackendError as error:
            self._refuse(stamp, error.detail)
        except Exception as error:  # a vendor's library may raise anything; the version in force goes on
            log.exception("loading %s failed in a way that nobody foresaw", self._label)
            self._refuse(stamp, f"it could not be loaded: {error}")
        finally:
            self._loading = None

    def _retire(self, version: V) -> None:
        """Lets go of a version, beside the others' work."""
        retiring = asyncio.create_task(_let_go(version, self._label), name=f"retire {self._label}")
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    def _refuse(self, stamp: Stamp, why: str) -> None:
        if self._stamp() != stamp:
            return
        self._loaded = stamp
        self._refusals += 1
        in_force = self.in_force.runtime.sha256[:12]
        self._problem = f"The file on disk is not in force, version {in_force} still is: {why}"
        log.error("%s: %s", self._label, self._problem)


async def _let_go(version: Version, label: str) -> None:
    try:
        await version.close()
    except Exception:  # a vendor's library may raise anything; the version in force goes on
        log.exception("letting go of a version of %s failed", label)
    del version
    await asyncio.to_thread(give_back)


def stamp_of(*files: Path) -> Stamp:
    """The stamp of these files."""
    return tuple(_stamp(file) for file in files)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
