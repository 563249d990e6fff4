"""Everything that a drill runs against, started and ended: a line, a cloud, and a gateway for each scenario."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from drills.cloud import Cloud
from drills.gateway import Gateway
from drills.line import Line, RelayLine
from drills.network import NamespaceLine
from drills.owner import is_gone, mark
from drills.streams import MARKERS

FOLDER_PREFIX = "hybrid-router-drill"


class Lab:
    """A site and its cloud. Used as a context manager, it is up inside and gone without a trace after.

    Args:
        relay: Use a relay on loopback instead of network namespaces; needs no root.

    Attributes:
        line: The line between the two.
        cloud: Triton.
        has_root: Whether what lives below TCP, and mounts, can be had.
    """

    line: Line
    cloud: Cloud

    def __init__(self, *, relay: bool) -> None:
        self.has_root = not relay
        self._open = ExitStack()
        self._folder = Path()

    def gateway(self, scenario: str, *, small_disk: bool = False, own_device: bool = False) -> Gateway:
        """A gateway of the scenario's own, not started yet; to be closed by whoever asks."""
        return Gateway(self.line, self.folder(scenario), small_disk=small_disk, own_device=own_device)

    def folder(self, scenario: str) -> Path:
        """A new folder for a scenario's files; gone with the lab."""
        return Path(tempfile.mkdtemp(prefix=f"{scenario}-", dir=self._folder))

    def start_cloud(self) -> None:
        """Starts the cloud unless it runs; its `wait_ready` is the caller's."""
        if not self.cloud.running:
            self.cloud.stop()
            self.cloud.start()

    def __enter__(self) -> Self:
        """Makes the line and starts the cloud.

        Raises:
            LineFailed: The line cannot be had; the message says what to do.
            ChildFailed: The cloud did not start; the message says why.
        """
        remove_leftovers()
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self._folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}-{mark()}-"))
            self._open.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self.line = self._make_line()
            self._open.callback(self.line.close)
            self.cloud = Cloud(self.line, self._folder)
            self._open.callback(self.cloud.stop)
            self.cloud.start()
            self.cloud.wait_ready()
            on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends and removes everything."""
        self.close()

    def close(self) -> None:
        """Ends and removes everything; harmless when done already. A second Ctrl-C does not stop it half-way."""
        with _undisturbed():
            self._open.close()

    def _make_line(self) -> Line:
        return NamespaceLine(MARKERS, self._folder) if self.has_root else RelayLine(MARKERS, self._folder)


def remove_leftovers() -> None:
    """Removes the folders of drills that are gone. Their processes ended with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}-*"):
        if is_gone(folder.name, FOLDER_PREFIX):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Puts off SIGINT and SIGTERM until the end of the block, in the thread that may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    put_off: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {
        number: signal.signal(number, lambda number, _: put_off.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in put_off:
            signal.raise_signal(number)
