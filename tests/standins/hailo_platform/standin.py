"""What a test does to the chip that is not there. None of it exists in the vendor's package."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

LOCK_FILE = "HAILO_STANDIN_LOCK"
"""Environment variable: the file whose lock is the chip's one owner, so that processes can compete for it."""
ABSENT = "HAILO_STANDIN_ABSENT"
IMPORT_FAILS = "HAILO_STANDIN_IMPORT_FAILS"


@dataclass
class Chip:
    """The chip.

    Args:
        present: Whether it is on the bus.
        queue_size: What `get_async_queue_size` says.
        frame_s: Seconds that a frame takes.
        gate: Frames wait for it: cleared, the chip hangs.
        fail_next: Status names that the next frames end with.
        refuse_next: Status names that the next calls of `run_async` fail with.
        temperature_c: What its sensors say.
        shuts_down_at_c: From here on its data flow is stopped.
        power_w: None on a board that does not measure it.
        throttled: Whether it slows down.
        configured: How often a model was configured.
        configure_fails: Status name that configuring ends with.
        most_under_way: The most frames that were ever queued at once.
        garbage_collections: How many Device and VDevice objects were made; each collects garbage in the vendor's.
    """

    present: bool = True
    queue_size: int = 8
    frame_s: float = 0.0
    gate: threading.Event = field(default_factory=threading.Event)
    fail_next: list[str] = field(default_factory=list)
    refuse_next: list[str] = field(default_factory=list)
    temperature_c: float = 48.0
    shuts_down_at_c: float = 120.0
    power_w: float | None = 1.4
    throttled: bool = False
    configured: int = 0
    configure_fails: str = ""
    most_under_way: int = 0
    garbage_collections: int = 0
    import_fails: str = ""
    owned: bool = False
    _lock_file: IO[str] | None = None

    def __post_init__(self) -> None:
        self.gate.set()
        self.present = self.present and not os.environ.get(ABSENT)
        self.import_fails = os.environ.get(IMPORT_FAILS, "")

    def take(self) -> bool:
        """Makes the caller its owner, if nobody is."""
        if self.owned or not self.present:
            return False
        path = os.environ.get(LOCK_FILE)
        if path:
            file = open(path, "a")  # noqa: SIM115 held until the chip is let go
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return False
            self._lock_file = file
        self.owned = True
        return True

    def let_go(self) -> None:
        """It has no owner any more."""
        self.owned = False
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def outcome(self) -> str:
        """The status name that a frame ends with now; empty where it went well."""
        self.gate.wait()
        if not self.present:
            return "HAILO_COMMUNICATION_CLOSED"
        if self.temperature_c >= self.shuts_down_at_c:
            return "HAILO_STREAM_ABORT"
        return self.fail_next.pop(0) if self.fail_next else ""


CHIP = Chip()


def write_hef(
    path: Path, onnx: Path, inputs: Mapping[str, Mapping[str, Any]], outputs: Mapping[str, Mapping[str, Any]]
) -> None:
    """Writes a stand-in's `.hef`.

    Args:
        path: Where to.
        onnx: The model that answers.
        inputs: By the ONNX tensor's name: `stream`, `shape`, and if need be `order`, `scale`, `zero_point`,
            `onnx_shape` (of one row; where it has three dimensions, channels first).
        outputs: The same.
    """
    path.write_text(json.dumps({"hef": 1, "onnx": str(onnx), "inputs": inputs, "outputs": outputs}))


def vector(stream: str, size: int, **more: Any) -> dict[str, Any]:
    """A stream of vectors."""
    return {"stream": stream, "shape": [size], "order": "NC"} | more


def picture(stream: str, shape: Sequence[int], **more: Any) -> dict[str, Any]:
    """A stream of images: height, width, channels."""
    return {"stream": stream, "shape": list(shape), "order": "NHWC"} | more
