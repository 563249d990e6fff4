"""Files that are replaced whole or not at all, whenever the process or the power ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Puts this in the place of what the file holds, or leaves it as it is. What is no file, a pipe say, is written to.

    Raises:
        OSError: It cannot be written; it names the file.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    fresh = path.with_name(f"{path.name}.new")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        os.fsync(folder)  # or else a power cut may take the new name back
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a disk that is full names none
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(folder)
