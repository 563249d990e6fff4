"""Run one server so that nothing of it outlives its owner: a process apart, standard library only.

The owner starts this file with one argument, the JSON of `Orders`; it prints the server's process id on one
line and stays until the server has ended, for whichever reason:

- The owner ends, even by SIGKILL: the server and its children are killed. A descriptor of the owner's process
  says so, not PR_SET_PDEATHSIG, which fires as soon as the *thread* that forked ends.
- SIGTERM or SIGINT: the server gets SIGTERM and the time of grace, then SIGKILL.
- The server ends by itself or by SIGKILL: the child processes and shared memory it left are cleared away.
- This process is killed: PR_SET_PDEATHSIG takes the server with it; the server's children watch their parent.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Orders:
    """What to run and what to clear away.

    Attributes:
        owner: process id whose end is the end of the server.
        command: the server's command line.
        log: file that gets what the server prints.
        grace_s: seconds between SIGTERM and SIGKILL.
        shared_memory_prefix: how the names of the server's shared memory begin.
        scratch: directory to remove if the owner can't do it any more, or "".
    """

    owner: int
    command: list[str]
    log: str
    grace_s: float
    shared_memory_prefix: str
    scratch: str


def keep(orders: Orders) -> None:
    """Run the server until it, its owner or a signal says that it is over, and leave nothing behind."""
    libc = ctypes.CDLL(None)
    # Orphans of the server become our children rather than init's, so that all of them can be waited for.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    told_to_stop, wake = os.pipe()
    os.set_blocking(wake, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(wake, b"."))
    with open(orders.log, "ab") as log:
        server = subprocess.Popen(
            orders.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
            # Unsafe only where other threads hold locks while this one forks; here is one thread.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        )
    server_end = os.pidfd_open(server.pid)
    print(server.pid, flush=True)

    owner_alive = _wait_for_an_end(orders.owner, server_end, told_to_stop)
    if owner_alive:
        server.terminate()
        _readable([server_end], orders.grace_s)
    # The group's number can't be given to anyone else before the server has been waited for.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    for leftover in SHARED_MEMORY.glob(f"{orders.shared_memory_prefix}*"):
        leftover.unlink(missing_ok=True)
    if orders.scratch and os.getppid() != orders.owner:
        shutil.rmtree(orders.scratch, ignore_errors=True)


def _wait_for_an_end(owner: int, server_end: int, told_to_stop: int) -> bool:
    """Wait until the server or the owner has ended or a signal came; whether the owner is still there."""
    try:
        owner_end = os.pidfd_open(owner)
    except ProcessLookupError:
        return False
    # Had the owner ended before the line above, its number might by now be somebody else's.
    if os.getppid() != owner:
        return False
    return owner_end not in _readable([owner_end, server_end, told_to_stop], None)


def _readable(descriptors: list[int], timeout_s: float | None) -> list[int]:
    """Those of the descriptors that became readable in time; a process's does when it ends."""
    return select.select(descriptors, [], [], timeout_s)[0]


if __name__ == "__main__":
    keep(Orders(**json.loads(sys.argv[1])))
