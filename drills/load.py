"""An open-loop load, and its handle: requests leave at a constant rate, whatever became of the earlier ones.

`Load` runs `drills.sender` in a process of its own, so that a busy drill does not make its own load late. The two
speak in JSON: the spec goes in on standard input, and the results come back as lines of a file that is followed while
it grows. Nothing here measures anything; every time is the sender's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import msgspec

from drills.record import Sample, Sighting

FOLLOW_EVERY_S = 0.2
STOP_TIMEOUT_S = 10.0


class LoadFailed(Exception):
    """The sender ended with an error; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of request, sent at a constant rate.

    Args:
        name: Its name in samples.
        per_second: How many a second.
        body: The JSON body, without an id: that goes in the header X-Request-Id.
        deadline_s: What the gateway is told in X-Deadline-Ms, and what lateness is measured by.
        headers: Further headers, such as X-Data-Class.
        patience_s: Seconds beyond the deadline after which the client gives up (status 0).
        burst: How many are due at the same moment; the rate stays what it is.
        seed: Of random moments, as many as there would be even ones; None for even ones.
    """

    name: str
    per_second: float
    body: bytes
    deadline_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = 1.0
    burst: int = 1
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What one sender does.

    Args:
        url: The gateway's base URL.
        streams: What is sent, side by side.
        seconds: For how long.
        zero: The run's zero, on the monotonic clock of this machine: all times are seconds since then.
        begins: When the first request is due. One that is past is a mistake: all requests until now would be late.
        headers: For every request, looks at `/status` included, such as Authorization.
        looks_per_second: How often to look at `/status`; 0 for never.
    """

    url: str
    streams: tuple[Stream, ...]
    seconds: float
    zero: float
    begins: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    looks_per_second: float = 20.0


class Line(msgspec.Struct, omit_defaults=True):
    """One line of results: a sample or a sighting."""

    sample: Sample | None = None
    sighting: Sighting | None = None


class Listener(Protocol):
    """Whoever wants to know how a run gets on, while it does."""

    def phase(self, what: str, seconds: float) -> None:
        """A part of the run begins, and takes about this long."""

    def saw(self, samples: Sequence[Sample]) -> None:
        """These requests have ended since it was last told."""


class Load:
    """A sender that is running.

    Args:
        spec: What it sends.
        results: Where it writes; a file of its own.
        prefix: Put before its command line, such as `ip netns exec NAME`.
        saw: Told of new samples while it runs.

    Use `async with`: leaving the block stops the sender if it still runs, and waits for its last answers.
    """

    def __init__(
        self,
        spec: LoadSpec,
        results: Path,
        prefix: Sequence[str] = (),
        saw: Callable[[Sequence[Sample]], None] = lambda _: None,
    ) -> None:
        self._spec = spec
        self._results = results
        self._prefix = prefix
        self._saw = saw
        self._samples: list[Sample] = []
        self._sightings: list[Sighting] = []
        self._read_to = 0
        self._last_words = b""
        self._process: asyncio.subprocess.Process | None = None
        self._follower: asyncio.Task[None] | None = None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What has ended so far, in the order in which it was due."""
        return tuple(sorted(self._samples, key=lambda sample: (sample.due, sample.id)))

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """The looks at the gateway so far, in order."""
        return tuple(sorted(self._sightings, key=lambda sighting: sighting.at))

    async def wait(self) -> None:
        """Waits until everything was sent and answered, or given up.

        Raises:
            LoadFailed: The sender ended with an error.
        """
        assert self._process is not None, "use `async with`"
        assert self._process.stderr is not None
        self._last_words += await self._process.stderr.read()
        await self._process.wait()
        self._read()
        if self._process.returncode:
            raise LoadFailed(self._last_words.decode(errors="replace")[-2000:] or "it was killed")

    async def stop(self) -> None:
        """Has it send no more, and waits for the answers to what was sent.

        Raises:
            LoadFailed: The sender ended with an error, or did not end.
        """
        assert self._process is not None, "use `async with`"
        assert self._process.stdin is not None
        self._process.stdin.close()  # rather than a signal, which might come when it is about to end by itself
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise LoadFailed(f"it did not stop within {STOP_TIMEOUT_S:g} s") from None

    async def __aenter__(self) -> Self:
        self._results.touch()
        self._process = await asyncio.create_subprocess_exec(
            *self._prefix,
            *(sys.executable, "-m", "drills.sender", str(self._results)),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the drill to act on; it then stops its sender
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._spec) + b"\n")
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process is not None
        assert self._follower is not None
        self._follower.cancel()
        if kind is None:
            return await self.stop()
        # Something else went wrong, and that is what is to be reported.
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            self._read()

    def _read(self) -> None:
        with self._results.open("rb") as results:
            results.seek(self._read_to)
            content = results.read()
        whole, newline, _ = content.rpartition(b"\n")  # its last line may still be half written
        if not newline:
            return
        self._read_to += len(whole) + 1
        fresh = []
        for line in map(_line.decode, whole.split(b"\n")):
            if line.sample is not None:
                fresh.append(line.sample)
            elif line.sighting is not None:
                self._sightings.append(line.sighting)
        self._samples += fresh
        if fresh:
            self._saw(fresh)


_line = msgspec.json.Decoder(Line)
