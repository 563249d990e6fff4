"""A copy of the policy file in force, on disk, to start from when the file itself is no good.

Invariants:
- The copy is whole or it is none: its last line says what the rest adds up to. A policy file that lost its end may well
  be a valid one, without the rules that stood there.
- It is replaced in one step. Whoever is killed, or loses power, while a new one is written leaves the one before or the
  new one; once `keep` has returned True a power cut leaves the new one.
- A disk that does not take it costs the copy and nothing else; `keep` raises nothing, and leaves no half-written file
  in a place that is full.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Final

from backends.whole_file import write_whole
from policies.document import MAX_BYTES

log = logging.getLogger(__name__)

_SEAL: Final = b"\n# The copy of a policy file that was in force; SHA-256 of all above: "
_SEAL_BYTES: Final = len(_SEAL) + 2 * hashlib.sha256().digest_size + 1


def sealed(content: bytes) -> bytes:
    """The content and a last line that says what it adds up to."""
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"


def unsealed(copy: bytes) -> bytes | None:
    """The content of a copy, or None if that is not whole."""
    content = copy[:-_SEAL_BYTES]
    return content if len(copy) >= _SEAL_BYTES and sealed(content) == copy else None


class PolicyCopy:
    """The copy at one place. Does blocking I/O: call it in a thread.

    Args:
        path: Where it is; its folder is made when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._on_disk: bytes | None = None
        self._complained = False

    def read(self) -> bytes | None:
        """What was kept last, or None if there is nothing, or nothing that can be read whole."""
        try:
            with self.path.open("rb") as file:
                copy = file.read(MAX_BYTES + _SEAL_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s cannot be read (%s)", self.path, error.strerror)
            return None
        self._on_disk = unsealed(copy)
        if self._on_disk is None:
            log.warning("%s is damaged and is not used", self.path)
        return self._on_disk

    def keep(self, content: bytes) -> bool:
        """Keeps this from now on, if it is not what is kept already. Returns whether the disk has it for sure."""
        if content == self._on_disk:
            return True
        self._on_disk = None  # whatever becomes of this, the one before may be gone
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, sealed(content))
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning(
                    "%s cannot be written (%s): until it can, a restart needs a good policy file, or else it starts "
                    "from the copy before, if there is one",
                    self.path,
                    error.strerror,
                )
            return False
        self._on_disk = content
        self._complained = False
        return True
