"""The cloud under drill: `hybrid-router cloud`, a real Triton, to be killed, stopped and made to fail."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from drills.child import Child, ChildFailed, python
from drills.line import Line

START_S = 60.0
"""Loading the models takes a second on a desktop, and a good deal longer on a Raspberry Pi."""

NICENESS = "10"
"""The cloud shares cores with the gateway here, which it would not in life, and starting it costs seconds of CPU."""


class Cloud:
    """Triton where the line says that the cloud is.

    Args:
        line: Where it is.
        folder: For its log and its switch.
    """

    def __init__(self, line: Line, folder: Path) -> None:
        self._line = line
        self._log = folder / "cloud.log"
        self._failing = folder / "cloud-fails"
        self._child: Child | None = None
        self._triton = 0

    def start(self) -> None:
        """Starts it; `wait_ready` says when it serves."""
        grpc, http, metrics = self._line.triton_ports
        ports = [f"--grpc-port={grpc}", f"--http-port={http}", f"--metrics-port={metrics}"]
        self._child = Child(
            self._line.at_cloud(["nice", "-n", NICENESS, *python("app", "cloud", *ports)]),
            self._log,
            {"HYBRID_ROUTER_FAIL_FILE": str(self._failing)},
        )

    def wait_ready(self) -> None:
        """Waits until it serves every model.

        Raises:
            ChildFailed: It does not; the message has the reason.
        """
        assert self._child is not None, "start() comes first"
        line = self._child.line(START_S)
        found = re.match(r"Triton (\d+) serves", line)
        if found is None:
            raise ChildFailed(f"the cloud said {line!r}")
        self._triton = int(found[1])

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.running

    def crash(self) -> None:
        """SIGKILLs Triton, and waits until its keeper has cleared up."""
        os.kill(self._triton, signal.SIGKILL)

    def cleared_up(self) -> None:
        """Waits until what started a crashed Triton has ended as well."""
        self.stop()

    def hang(self) -> None:
        """Triton stops computing; its connections stay, and the kernel goes on to acknowledge what arrives."""
        os.kill(self._triton, signal.SIGSTOP)

    def go_on(self) -> None:
        """Undoes `hang`."""
        os.kill(self._triton, signal.SIGCONT)

    def fail(self) -> None:
        """Every inference ends in an error; health stays good."""
        self._failing.touch()

    def succeed(self) -> None:
        """Undoes `fail`."""
        self._failing.unlink(missing_ok=True)

    def stop(self) -> None:
        """Ends it, whatever state it is in; harmless when it does not run."""
        self.succeed()
        if self._child is None:
            return
        if self._child.running and self._triton:
            self.go_on()
        self._child.stop()
        self._child = None
        self._triton = 0
