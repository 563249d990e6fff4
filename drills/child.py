"""A process that a drill starts and that ends with it, whichever way the drill ends.

The kernel kills it when the drill's main thread ends (`setpriv --pdeathsig`), so that even a SIGKILL leaves nothing
running. It is in a session of its own: Ctrl-C in a terminal reaches the drill alone, which then stops it in order.
Start children from the main thread only: the kernel watches the thread that forked, not the process.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent

GRACE_S = 12.0
"""Between SIGTERM and SIGKILL. A gateway drains for up to ten seconds."""

LOG_TAIL_LINES = 6


class ChildFailed(Exception):
    """A process ended, or said nothing in time; the message has the end of its log."""


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this checkout with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def _clean_environment() -> dict[str, str]:
    """This process's environment without what would lead a child elsewhere: settings of a gateway, and proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HYBRID_ROUTER_") and not name.lower().endswith("_proxy")
    }


class Child:
    """One process, with its input and output on pipes and its errors in a file.

    Args:
        command: The command line, with whatever puts it into its namespace in front.
        log: Gets what it writes to standard error; appended to.
        environment: Further environment variables.
        pass_fds: Descriptors that it inherits, under the same numbers.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._log = log
        self._unread = b""
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                cwd=ROOT,
                env=_clean_environment() | dict(environment or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def write(self, content: bytes) -> None:
        """Writes to its input.

        Raises:
            ChildFailed: It has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(content)
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise ChildFailed(f"{self._name} ended: {self.log_tail()}") from None

    def end_input(self) -> None:
        """Closes its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def line(self, timeout_s: float) -> str:
        """Waits for the next line that it prints.

        Raises:
            ChildFailed: It ended, or printed nothing within `timeout_s` seconds.
        """
        assert self._process.stdout is not None
        give_up = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, give_up - time.monotonic()))
            if not ready:
                raise ChildFailed(f"{self._name} said nothing in {timeout_s:g} s: {self.log_tail()}")
            found = os.read(self._process.stdout.fileno(), 65536)
            if not found:
                raise ChildFailed(f"{self._name} ended: {self.log_tail()}")
            self._unread += found
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def ask(self, question: object, timeout_s: float = 5.0) -> str:
        """Writes a question as a line of JSON, and waits for the line that answers it.

        Raises:
            ChildFailed: It ended, or gave no answer in time.
        """
        self.write(msgspec.json.encode(question) + b"\n")
        return self.line(timeout_s)

    def signal(self, number: int) -> None:
        """Sends it a signal; harmless when it has ended."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Waits until it has ended; whether it did in time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Asks it to end, makes it end if it does not, and closes its pipes; harmless when it has ended."""
        self._process.terminate()
        if not self.wait(GRACE_S):
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue

    def log_tail(self) -> str:
        """The last lines that it wrote to standard error, on one line."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(lines[-LOG_TAIL_LINES:]) or "its log is empty"

    @property
    def _name(self) -> str:
        command = self._process.args
        assert isinstance(command, list)
        return " ".join(str(part) for part in command[-4:])
