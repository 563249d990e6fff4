"""Watches a live gateway while a person pulls the real cable: makes the load, and sees the outage from outside.

When the cable was pulled nobody tells: the outage begins with the first request of a row that the cloud did not answer
as usual, and ends with the first of a row that it does. So detection is measured; the time from the cable's return to
the cloud's is not.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import orjson

from drills.expectations import OUTAGE, Expectation
from drills.figures import IN_A_ROW
from drills.load import Load, LoadSpec, Stream
from drills.progress import Progress
from drills.record import Record, Sample

NAME = "live"
ON_PREMISES = "on-premises"
TIMEOUT_S = 10.0
LEAD_S = 1.5
LOOK_EVERY_S = 0.5
ZEROS: Mapping[str, Any] = {"bool": False, "string": ""}


class NotWatchable(Exception):
    """There is nothing to watch; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is watched.

    Args:
        url: The gateway's base URL.
        model: The model that is asked.
        remote: The backend that answers it now, on the other side of the cable.
        body: A request.
        headers: For every request.
    """

    url: str
    model: str
    remote: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def expectation(self) -> Expectation:
        """What a pulled cable's outage is judged by, as far as it can be from outside."""
        watched = f"{self.model}/{self.remote}"
        return replace(OUTAGE, watched=watched, recovery=False, outage=False, phi_on_wire=False)


@dataclass(frozen=True, slots=True)
class Outage:
    """When it was, seconds since the run's zero; `ended` is None while it lasts."""

    began: float
    ended: float | None


def find_subject(url: str, model: str, inputs: bytes | None, api_key: str | None) -> Subject:
    """Asks the gateway once, to see who answers.

    Args:
        url: Its base URL.
        model: Which model to ask.
        inputs: The inputs as JSON, or None for zeros of the declared shapes.
        api_key: Its key, if it asks for one.

    Raises:
        NotWatchable: It does not answer, or not from across the cable.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    url = url.rstrip("/")
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as http:
            tensors = orjson.loads(inputs) if inputs is not None else _zeros(_get(http, "/models"), model)
            body = orjson.dumps({"model": model, "inputs": tensors})
            response = http.post("/infer", content=body, headers={"Content-Type": "application/json"})
            answer = response.json()
            if response.is_error:
                raise NotWatchable(f"{url} answers {response.status_code}: {answer.get('detail', answer)}")
            remote = answer["route"]["backend"]
            targets = _get(http, "/status")["models"][model]["targets"]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotWatchable(f"No gateway answers at {url} ({error}).") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotWatchable(f"{url} does not answer as a gateway does, or --inputs is not JSON ({error!r}).") from None
    sites = {target["backend"]: target["site"] for target in targets}
    if answer["route"]["degraded"] or sites.get(remote) == ON_PREMISES:
        raise NotWatchable(
            f"{remote} on the premises answers {model} already, so that no cable can be missed. Wait until the cloud "
            "is back, or name a model whose policy prefers the cloud."
        )
    return Subject(url, model, remote, body, headers)


def _get(http: httpx.Client, path: str) -> Any:
    return http.get(path).raise_for_status().json()


def _zeros(models: Any, model: str) -> dict[str, Any]:
    """Inputs of zeros, one row."""
    if model not in models["models"]:
        raise NotWatchable(f"The gateway has no model {model}; it has {', '.join(sorted(models['models']))}.")
    return {
        name: _nested([max(1, size) for size in spec["shape"]], ZEROS.get(spec["dtype"], 0))
        for name, spec in models["models"][model]["inputs"].items()
    }


def _nested(shape: Sequence[int], value: Any) -> Any:
    return [_nested(shape[1:], value) for _ in range(shape[0])] if shape else value


async def watch(
    subject: Subject, per_second: float, deadline_s: float, seconds: float, after_s: float, progress: Progress
) -> Record:
    """Watches until an outage has come and gone, until Ctrl-C, or for `seconds`.

    Args:
        subject: What to watch.
        per_second: Rate of the load.
        deadline_s: Deadline of each request.
        seconds: For how long at most.
        after_s: How long to go on when the outage is over.
        progress: Told what is seen.

    Raises:
        NotWatchable: No outage came.
        LoadFailed: The load did not work.
    """
    progress.scenario(subject.url)
    progress.say(
        f"{subject.remote} answers {subject.model}. Pull the cable, wait, and plug it in again; Ctrl-C ends it."
    )
    stream = Stream("primary", per_second, subject.body, deadline_s)
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, enough.set)
    zero = time.monotonic()
    spec = LoadSpec(subject.url, (stream,), seconds, zero, LEAD_S, subject.headers)
    with tempfile.TemporaryDirectory() as folder:
        async with Load(spec, Path(folder) / "load.jsonl", saw=progress.saw) as load:
            progress.phase("watching", seconds)
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_until_over(load, subject.remote, after_s, enough, progress))
                group.create_task(_set_after(seconds + LEAD_S, enough, watcher))
            await load.stop()
        samples, sightings = load.samples, load.sightings
    outage = find_outage(samples, subject.remote)
    if outage is None:
        raise NotWatchable(f"No outage was seen: {subject.remote} answered all the while.")
    ended = samples[-1].due if outage.ended is None else outage.ended
    fault = f"The cable of a live gateway was pulled: {subject.remote} was missed for {ended - outage.began:.1f} s."
    problems = () if outage.ended is not None else (f"When the watch ended, {subject.remote} was not back yet.",)
    return Record(NAME, fault, outage.began, ended, samples, sightings, problems=problems)


async def _set_after(seconds: float, event: asyncio.Event, unless: asyncio.Task[None]) -> None:
    await asyncio.wait([unless], timeout=seconds)
    event.set()


async def _until_over(load: Load, remote: str, after_s: float, enough: asyncio.Event, progress: Progress) -> None:
    """Looks at what has come so far again and again, says what is new, and returns when it is over or enough."""
    told: Outage | None = None
    while not enough.is_set():
        seen = find_outage(load.samples, remote)
        if seen is not None and told is None:
            progress.say(f"{remote} does not answer as it did, since {seen.began:.2f} s after the start.")
            progress.phase("outage; plug the cable in again", 0.0)
        if seen is not None and seen.ended is not None and (told is None or told.ended is None):
            progress.say(f"{remote} answers again, after {seen.ended - seen.began:.2f} s.")
            progress.phase("after", after_s)
        told = seen
        newest = load.samples[-1].due if load.samples else 0.0
        if seen is not None and seen.ended is not None and newest >= seen.ended + after_s:
            return
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await enough.wait()
        except TimeoutError:
            continue


def find_outage(samples: Sequence[Sample], remote: str) -> Outage | None:
    """The first outage in samples that are in order of when they were due. A single request amiss is none.

    Args:
        samples: The main load.
        remote: The backend that answers when all is well.
    """
    began: float | None = None
    in_a_row: list[Sample] = []
    for sample in samples:
        well = _is_well(sample, remote)
        # Before the outage, rows of what is not well count; in it, rows of what is.
        if well is (began is None):
            in_a_row.clear()
            continue
        in_a_row.append(sample)
        if len(in_a_row) < IN_A_ROW:
            continue
        first = in_a_row[0].due
        if began is not None:
            return Outage(began, first)
        began = first
        in_a_row.clear()
    return None if began is None else Outage(began, None)


def _is_well(sample: Sample, remote: str) -> bool:
    paid = any(backend == remote and outcome != "success" for backend, outcome, _ in sample.attempts)
    return sample.answered and sample.backend == remote and not sample.degraded and not paid
