"""The processes of a benchmark: one Triton for all of it, and a relay and a gateway for each measurement.

All of them listen on loopback and end with this process, whichever way it ends. Only what the plan names by URL is
ever asked elsewhere.
"""

from __future__ import annotations

import http.client
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from drills.child import ROOT, Child, ChildFailed, python
from drills.line import LOOPBACK, RelayProcess
from drills.owner import is_gone, mark
from drills.relay import Conditions
from planning.bench.plan import Cell, Plan
from planning.bench.served import MODEL_FILE, policy_file, triton_config
from planning.bench.subject_model import SubjectModel, prepare
from planning.prices import Prices

FOLDER_PREFIX = "hybrid-router-bench"
CLOUD_START_S = 60.0
GATEWAY_START_S = 30.0
AVAILABLE_S = 30.0
LOOK_EVERY_S = 0.05
ASK_TIMEOUT_S = 2.0

SETTINGS = {
    "HYBRID_ROUTER_GRPC_PORT": "off",  # nobody asks there, and its usual port may be a real gateway's
    "HYBRID_ROUTER_MAX_BODY_BYTES": str(256 * 1024 * 1024),  # against strangers, which a plan's payload is none of
    "HYBRID_ROUTER_DRAIN_NOTICE_S": "0",
}

TRITON_MODEL = ROOT / "deploy/triton/model.py"


class StageFailed(Exception):
    """A process did not do what it should have; the message says which, and why."""


class Stage:
    """Used as a context manager: the model is ready inside, and everything is gone after.

    Args:
        plan: The plan.
        prices: What edge and cloud are priced by.
        say: Told in a sentence what takes time.

    Attributes:
        model: The model under benchmark.
        folder: For files; gone afterwards.
    """

    model: SubjectModel
    folder: Path

    def __init__(self, plan: Plan, prices: Prices, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._prices = prices
        self._say = say
        self._open = ExitStack()
        self._cloud = ""
        self._measured = 0

    def __enter__(self) -> Self:
        """Makes the folder and the model.

        Raises:
            UnusableModel: The plan's model cannot be used.
            NotServable: A subject cannot be served.
        """
        for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}-*"):
            if is_gone(folder.name, FOLDER_PREFIX):
                shutil.rmtree(folder, ignore_errors=True)
        with ExitStack() as on_failure:
            on_failure.callback(self._open.close)
            self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}-{mark()}-"))
            self._open.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.model = prepare(self._plan, self.folder)
            self._check()
            on_failure.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends and removes everything."""
        self._open.close()

    def _check(self) -> None:
        """What cannot be served is better known before the first measurement than after an hour of them."""
        for subject in self._plan.subjects:
            if not subject.gateway:
                policy_file(self._plan, subject, self.model.spec, f"grpc://{LOOPBACK}:1", self._prices)
        if self._plan.cloud is None and any(subject.crosses_line for subject in self._plan.subjects):
            triton_config(self.model.spec)

    @contextmanager
    def gateway(self, cell: Cell) -> Iterator[str]:
        """A gateway that the cell can be measured with; gives its URL.

        Raises:
            StageFailed: It, the relay or the cloud did not start, or was not of use in time.
        """
        if cell.subject.gateway:
            yield cell.subject.gateway
            return
        self._measured += 1
        folder = self.folder / f"gateway-{self._measured}"
        folder.mkdir()
        with ExitStack() as running:
            try:
                cloud = self._line(cell, folder, running)
                url = self._serve(cell, cloud, folder, running)
            except ChildFailed as error:
                raise StageFailed(f"{cell.key}: {error}") from None
            yield url

    def _line(self, cell: Cell, folder: Path, running: ExitStack) -> str:
        """Starts what stands between gateway and cloud; gives the cloud's address as the gateway sees it."""
        if cell.network is None:
            return f"grpc://{LOOPBACK}:1"  # not named in its policy file
        cloud = self._own_cloud() if self._plan.cloud is None else self._plan.cloud.url
        parts = urlsplit(cloud)
        if parts.scheme == "grpcs":
            return cloud
        assert parts.hostname is not None
        assert parts.port is not None
        relay = RelayProcess([], (LOOPBACK, 0), (parts.hostname, parts.port), {}, folder / "relay.log")
        running.callback(relay.close)
        limit = cell.network.up_mbit_per_second
        relay.set(Conditions(cell.network.rtt_ms / 1000, up_bits_per_s=None if limit is None else limit * 1e6))
        return f"grpc://{LOOPBACK}:{relay.port}"

    def _serve(self, cell: Cell, cloud: str, folder: Path, running: ExitStack) -> str:
        models, state, policy = folder / "models", folder / "state", folder / "policy.yaml"
        models.mkdir()
        state.mkdir()
        (models / MODEL_FILE).symlink_to(self.model.file.resolve())
        policy.write_text(policy_file(self._plan, cell.subject, self.model.spec, cloud, self._prices), encoding="utf-8")
        options = ("--port", "0", "--policy", str(policy), "--models-dir", str(models), "--state-dir", str(state))
        gateway = Child(
            python("app", "serve", *options),
            folder / "gateway.log",
            SETTINGS,
        )
        running.callback(gateway.stop)
        found = re.search(r"listens on (http://\S+?),", gateway.line(GATEWAY_START_S))
        if found is None:
            raise StageFailed(f"{cell.key}: the gateway did not say where it listens: {gateway.log_tail()}")
        _wait_available(found[1], self.model.spec.name, cell)
        return found[1]

    def _own_cloud(self) -> str:
        """The address of a Triton on this machine; starts it when it is first asked for."""
        if self._cloud:
            return self._cloud
        self._say("Starting Triton as the cloud, which takes a few seconds ...")
        repository = self.folder / "repository"
        version = repository / self.model.spec.name / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(triton_config(self.model.spec), encoding="utf-8")
        shutil.copy(self.model.file, version / MODEL_FILE)
        shutil.copy(TRITON_MODEL, version / "model.py")
        ports = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
        cloud = Child(python("app", "cloud", *ports, "--repository", str(repository)), self.folder / "cloud.log")
        self._open.callback(cloud.stop)
        found = re.search(r"serves (grpc://\S+)", cloud.line(CLOUD_START_S))
        if found is None:
            raise StageFailed(f"Triton did not say where it serves: {cloud.log_tail()}")
        self._cloud = found[1]
        return self._cloud


def _wait_available(url: str, model: str, cell: Cell) -> None:
    give_up = time.monotonic() + AVAILABLE_S
    while problems := _problems(url, model):
        if time.monotonic() > give_up:
            raise StageFailed(f"{cell.key}: within {AVAILABLE_S:g} s it was not ready: {'; '.join(problems)}.")
        time.sleep(LOOK_EVERY_S)


def _problems(url: str, model: str) -> list[str]:
    """Why a gateway would not ask every backend of a model now; empty where it would."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("GET", "/status")
        status = msgspec.json.decode(connection.getresponse().read())
    except (OSError, http.client.HTTPException) as error:
        return [f"the gateway does not answer ({error!r})"]
    finally:
        connection.close()
    targets: list[dict[str, Any]] = status["models"][model]["targets"]
    return [f"{target['backend']} is {target['problem'] or 'not up'}" for target in targets if not target["available"]]
