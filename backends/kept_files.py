"""Files that a restart is better off with: a folder of optimised models, and one of the last good model files.

Invariants:
- A file is named after what it was made from and what it holds, by digests of both; one that holds anything else is
  dropped. A torn write is thus never loaded.
- What cannot be kept is not: a disk that is full or read-only costs what the file would save, no more.
- Of each key there is one file, but for the moment in which another takes its place.
- The folder holds at most so many bytes; what was not used for longest goes first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """The folder.

    Args:
        folder: Where it is; made when something is kept.
        suffix: How the files' names end.
        most_bytes: How much may be kept.
    """

    folder: Path
    suffix: str
    most_bytes: int = MOST_BYTES

    @staticmethod
    def key(*made_from: str) -> str:
        """The name of what was made from these."""
        return hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:32]

    def find(self, key: str) -> Path | None:
        """The file of this key, if it is there and whole."""
        for path in self._of(key):
            try:
                if path.name == self._name(key, digest(path)):
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

    def keep_copy(self, key: str, file: Path, sha256: str) -> None:
        """Keeps a copy of a file that has this digest, if it still has."""
        if (self.folder / self._name(key, sha256)).exists():
            return
        try:
            with self.writing(key) as unfinished:
                if unfinished is not None:
                    shutil.copyfile(file, unfinished)
                    if digest(unfinished) != sha256:
                        raise OSError(0, "it was written over meanwhile")
        except OSError as error:
            log.warning("no copy of %s is kept: %s", file, error.strerror)

    @contextlib.contextmanager
    def writing(self, key: str) -> Iterator[Path | None]:
        """Gives a file to write to, and keeps what was written if the block ends well.

        None where nothing can be kept, or another thread or process is about to keep the same.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                unfinished = self.folder / f"{key}{UNFINISHED}"
                file = stack.enter_context(unfinished.open("ab"))  # not "wb": that would empty what another is writing
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
            except OSError as error:
                log.info("nothing is kept in %s: %s", self.folder, error.strerror)
                yield None
                return
            try:
                yield unfinished
                self._keep(key, unfinished)
            finally:
                self.drop(unfinished)

    def _keep(self, key: str, unfinished: Path) -> None:
        """Gives a finished file its name, and lets others go: those of its key, and those that are too many."""
        try:
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            kept = unfinished.rename(self.folder / self._name(key, digest(unfinished)))
            for path in self._of(key):
                if path != kept:
                    self.drop(path)
            self._make_room()
        except OSError as error:
            log.warning("%s cannot be kept: %s", unfinished, error.strerror)

    def _make_room(self) -> None:
        files = [(path.stat(), path) for path in self.folder.glob(f"*{self.suffix}")]
        held = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda entry: entry[0].st_mtime_ns):
            if held <= self.most_bytes:
                return
            self.drop(path)
            held -= stat.st_size

    def _of(self, key: str) -> list[Path]:
        return sorted(self.folder.glob(f"{key}-*{self.suffix}"))

    def _name(self, key: str, sha256: str) -> str:
        return f"{key}-{sha256[:32]}{self.suffix}"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
