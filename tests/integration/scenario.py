"""What several integration tests need: clients that keep asking, edits of the policy file, and a look from outside."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import tritonclient.grpc as triton_grpc
import yaml

from app.cloud import TritonProcess
from tests.gateway_process import ROOT, GatewayProcess

MODELS = ROOT / "deploy/models"
SEVEN = MODELS / "seven.png"
BLANK = [[0.0] * 64]


def eventually(is_so: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Waits for it to be so; fails with `what` it should have been."""
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up, f"within {seconds:g} s it was not so that {what}"
        time.sleep(0.02)


def edited(policy: str, change: Callable[[dict[str, Any]], object]) -> str:
    """A policy file's text after `change` was made to its content."""
    content = yaml.safe_load(policy)
    change(content)
    return yaml.safe_dump(content, sort_keys=False)


def cloud_only(policy: str) -> str:
    """The policy file with no variants but those in the cloud."""

    def change(content: dict[str, Any]) -> None:
        for model in content["models"].values():
            del model["variants"]["edge"]

    return edited(policy, change)


def accuracy(model: str, side: str) -> int:
    """How many held-out pictures the model was right about when it was made."""
    report = json.loads((MODELS / "accuracy.json").read_text(encoding="utf-8"))
    return int(report[model][side]["correct"])


def served_by(cloud: TritonProcess, model: str) -> int:
    """How many inference requests Triton itself says it had for a model, failed ones included."""
    with triton_grpc.InferenceServerClient(cloud.grpc_url.removeprefix("grpc://")) as client:
        (statistics,) = client.get_inference_statistics(model, client_timeout=5).model_stats
    return int(statistics.inference_stats.success.count + statistics.inference_stats.fail.count)


def target(gateway: GatewayProcess, model: str, backend: str) -> dict[str, Any]:
    """What /status says of one model on one backend."""
    models = gateway.http.get("/status").json()["models"]
    (found,) = (seen for seen in models[model]["targets"] if seen["backend"] == backend)
    view: dict[str, Any] = found
    return view


def is_up(gateway: GatewayProcess, backend: str = "cloud", model: str = "digits") -> bool:
    """Whether the gateway would send requests there."""
    return bool(target(gateway, model, backend)["available"])


def open_files(pid: int) -> int:
    """How many descriptors a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid: int) -> int:
    """How much memory a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still are, theirs included."""
    try:
        direct = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text(encoding="ascii").split()
        ]
    except OSError:
        return []
    return [*direct, *(grandchild for child in direct for grandchild in children(child))]


def alive(pids: Sequence[int]) -> list[int]:
    """Those of the processes that still are; a zombie is not."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            found.append(pid)
    return found


class Answer(NamedTuple):
    """What one client got; `status` 0 where it got nothing."""

    status: int
    backend: str
    degraded: bool
    latency_ms: float
    detail: str

    @property
    def failed(self) -> bool:
        """Whether it is anything but an answer."""
        return self.status != 200


class Clients:
    """Clients that ask the same again and again, each over its own connection, until the `with` block ends.

    Args:
        gateway: Whom they ask.
        body: What they ask.
        count: How many they are.

    Attributes:
        answers: All that came back, in order of arrival.
    """

    PAUSE_S = 0.01

    def __init__(self, gateway: GatewayProcess, body: dict[str, Any], count: int = 8) -> None:
        self.answers: list[Answer] = []
        self._url = gateway.url
        self._body = json.dumps(body).encode()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def wait_for(self, is_enough: Callable[[list[Answer]], object], what: str, seconds: float = 15.0) -> list[Answer]:
        """Waits until the answers from now on are enough; returns them."""
        start = len(self.answers)
        eventually(lambda: is_enough(self.answers[start:]), what, seconds)
        return self.answers[start:]

    def failures(self) -> list[Answer]:
        """Every answer that is none."""
        return [answer for answer in self.answers if answer.failed]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a client still waits for its answer"

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=20.0, trust_env=False) as http:
            while not self._over.wait(self.PAUSE_S):
                try:
                    response = http.post("/infer", content=self._body, headers={"Content-Type": "application/json"})
                except httpx.HTTPError as error:
                    self.answers.append(Answer(0, "", False, 0.0, repr(error)))
                    continue
                if response.status_code != 200:
                    self.answers.append(Answer(response.status_code, "", False, 0.0, response.text))
                    continue
                route = response.json()["route"]
                self.answers.append(
                    Answer(200, route["backend"], route["degraded"], route["latency_ms"], route["reason"])
                )
