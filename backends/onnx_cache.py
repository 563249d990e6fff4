"""Optimised models, kept on disk so that a restart does not optimise again.

Invariants:
- A file is named after what it was made from and what it holds, by digests of both; one that holds anything else is
  dropped. A torn write is thus never loaded.
- What cannot be kept is not: a disk that is full or read-only costs the time that the cache would save, no more.
- The folder holds at most so many bytes; what was not used for longest goes first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backends.onnx_file import digest

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
SUFFIX = ".optimised.onnx"
UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class OptimisedModels:
    """The folder.

    Args:
        folder: Where it is; made when something is kept.
        most_bytes: How much may be kept.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    @staticmethod
    def key(*made_from: str) -> str:
        """The name of what was made from these: the model's digest, the runtime's version, options, processor."""
        return hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:32]

    def find(self, key: str) -> Path | None:
        """The file of this key, if it is there and whole."""
        for path in sorted(self.folder.glob(f"{key}-*{SUFFIX}")):
            try:
                if path.name == _name(key, digest(path)):
                    os.utime(path)
                    return path
            except OSError as error:
                log.warning("%s cannot be used: %s", path, error.strerror)
                continue
            log.warning("%s is damaged and is dropped", path)
            self.drop(path)
        return None

    def drop(self, path: Path) -> None:
        """Removes a file."""
        with contextlib.suppress(OSError):
            path.unlink()

    @contextlib.contextmanager
    def writing(self, key: str) -> Iterator[Path | None]:
        """Gives ONNX Runtime a file to write to, and keeps what it wrote if the block ends well.

        None where nothing can be kept, or another thread or process is about to keep the same.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                unfinished = self.folder / f"{key}{UNFINISHED}"
                file = stack.enter_context(unfinished.open("ab"))  # not "wb": that would empty what another is writing
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_ino != unfinished.stat().st_ino:
                    raise OSError(0, "another has just kept it")  # under its own name by now: this would empty it
                file.truncate(0)
            except OSError as error:
                log.info("an optimised model is not kept in %s: %s", self.folder, error.strerror)
                yield None
                return
            try:
                yield unfinished
                self._keep(key, unfinished)
            finally:
                self.drop(unfinished)

    def _keep(self, key: str, unfinished: Path) -> None:
        """Gives a finished file its name, and lets others go that have become too many."""
        try:
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.rename(self.folder / _name(key, digest(unfinished)))
            self._make_room()
        except OSError as error:
            log.warning("an optimised model cannot be kept: %s", error.strerror)

    def _make_room(self) -> None:
        files = [(path.stat(), path) for path in self.folder.glob(f"*{SUFFIX}")]
        held = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda entry: entry[0].st_mtime_ns):
            if held <= self.most_bytes:
                return
            self.drop(path)
            held -= stat.st_size


def _name(key: str, content: str) -> str:
    return f"{key}-{content[:32]}{SUFFIX}"
