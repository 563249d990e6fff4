"""The result file on the disk: never torn by a process that dies, and mended where a disk tore it all the same.

What stood in it before its last writing stays beside it, as `FILE.previous`, until the benchmark has ended.
"""

from __future__ import annotations

import os
from pathlib import Path

from planning.bench.results import Results, UnusableResults, dump_results, load_results


def save(results: Results, file: Path) -> None:
    """Writes it whole or not at all, and has the disk keep it.

    Raises:
        OSError: It cannot be written.
    """
    fresh, previous = file.with_name(f"{file.name}.new"), _previous(file)
    with fresh.open("wb") as out:
        out.write(dump_results(results))
        out.flush()
        os.fsync(out.fileno())
    if file.exists():
        file.replace(previous)
    fresh.replace(file)
    if results.ended is not None:
        previous.unlink(missing_ok=True)


def recover(file: Path) -> Results | None:
    """What a benchmark that did not end has left; None where it has left nothing.

    Raises:
        UnusableResults: There is something, but nothing that can be read.
        OSError: It cannot be read.
    """
    torn: UnusableResults | None = None
    for candidate in (file, _previous(file)):
        try:
            return load_results(candidate.read_bytes(), str(candidate))
        except FileNotFoundError:
            continue
        except UnusableResults as error:
            torn = torn or error
    if torn is not None:
        raise torn
    return None


def _previous(file: Path) -> Path:
    return file.with_name(f"{file.name}.previous")
