"""What a lone request costs, as others use the caches between two of them: `python -m tests.perf.lone`.

Under load a server finds what it needs in the caches; a request that comes alone finds there what others have
left. One connection asks again and again, and overwrites so much memory of its own between two requests. How long they
take it sees itself; how long the server's thread ran for each, /proc says. The gateway answers with the edge model, and
the FastAPI route does nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import uvloop

from tests.perf.hot_path import SUBJECTS, Subject, server
from tests.perf.keep_alive import connect, post

MEBIBYTES = (0, 1, 4, 16, 64)
WARM = 200
GET = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"


class Measured(NamedTuple):
    """Seconds at P50 as the client sees it, and seconds that the server's thread ran for each request."""

    p50_s: float
    ran_s: float


async def ask_on(url: str, pid: int, request: bytes, mebibytes: int, seconds: float) -> Measured:
    """Asks again and again, and overwrites so much memory in between."""
    others = np.zeros(mebibytes << 17)
    connection = await connect(url)
    for _ in range(WARM):
        await connection.ask(request)
    took: list[float] = []
    ran, end = _ran_s(pid), time.perf_counter() + seconds
    while time.perf_counter() < end:
        others += 1.0
        began = time.perf_counter()
        await connection.ask(request)
        took.append(time.perf_counter() - began)
    connection.close()
    return Measured(statistics.median(took), (_ran_s(pid) - ran) / len(took))


def _ran_s(pid: int) -> float:
    """Seconds that a process's first thread ran: all that these servers use under load."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each is measured.")
@click.option("--seconds", default=2.0, show_default=True, help="How long each measurement takes.")
def main(rounds: int, seconds: float) -> None:
    """Measure requests that come alone, with the caches used by others in between."""
    subjects = SUBJECTS[1:3]
    cells = [(subject, mebibytes) for subject in subjects for mebibytes in MEBIBYTES]
    measured: dict[tuple[Subject, int], list[Measured]] = {cell: [] for cell in cells}
    with click.progressbar(length=rounds * len(cells), label="measuring", file=sys.stderr) as progress:
        for _ in range(rounds):
            for subject in subjects:
                request = GET if subject.body is None else post(subject.path, subject.body)
                with server(subject) as (pid, url):
                    for mebibytes in MEBIBYTES:
                        one = uvloop.run(ask_on(url, pid, request, mebibytes, seconds))
                        measured[subject, mebibytes].append(one)
                        progress.update(1)
    click.echo("| overwritten in between | server | P50 | server ran |\n|---|---|---|---|")
    for mebibytes in MEBIBYTES:
        for subject in subjects:
            p50, ran = map(statistics.median, zip(*measured[subject, mebibytes], strict=True))
            click.echo(f"| {mebibytes} MiB | {subject.name} | {p50 * 1e6:.0f} µs | {ran * 1e6:.0f} µs |")


if __name__ == "__main__":
    main()
