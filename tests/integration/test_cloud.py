"""The launcher with the real Triton: right answers, and nothing left behind however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from app.cloud import CloudPorts, CloudUnavailable, TritonProcess

PROJECT = Path(__file__).resolve().parents[2]
MODELS = PROJECT / "deploy" / "models"
ANY_PORTS = CloudPorts(grpc=0, http=0, metrics=0)
BATCH = 60

OWNER = """
import sys, threading, time
from app.cloud import CloudPorts, TritonProcess
cloud = TritonProcess(CloudPorts(grpc=0, http=0, metrics=0))
# Started by a thread that ends: the server has to live as long as the process, not as long as the thread.
starter = threading.Thread(target=cloud.start)
starter.start()
starter.join()
cloud.wait_ready()
print(cloud.pid, cloud.log_path.parent, flush=True)
time.sleep(60)
"""

Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def cloud() -> Iterator[TritonProcess]:
    with TritonProcess(ANY_PORTS) as process:
        yield process


@pytest.fixture(scope="module")
def client(cloud: TritonProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(cloud.grpc_url.removeprefix("grpc://")) as connection:
        yield connection


@pytest.fixture(scope="module")
def holdout() -> Tensors:
    with np.load(MODELS / "digits-holdout.npz") as arrays:
        return dict(arrays)


def infer(client: triton.InferenceServerClient, model: str, inputs: Tensors, outputs: list[str]) -> Tensors:
    tensors = []
    for name, array in inputs.items():
        datatype = "BYTES" if array.dtype == object else "FP32"
        tensors.append(triton.InferInput(name, list(array.shape), datatype))
        tensors[-1].set_data_from_numpy(array)
    answer = client.infer(model, tensors, client_timeout=10)
    return {name: answer.as_numpy(name) for name in outputs}


def accuracy(model: str) -> int:
    report = json.loads((MODELS / "accuracy.json").read_text(encoding="utf-8"))
    return int(report[model]["cloud"]["correct"])


def blank_png(side: int) -> bytes:
    """A black square: a few kilobytes of file, however many pixels."""
    file = BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def processes_of(*marks: str) -> list[str]:
    """Command lines, of all running processes, that mention one of the marks; zombies have none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(mark in line for mark in marks):
            found.append(line)
    return found


def eventually(is_so: Callable[[], bool], seconds: float = 5.0) -> bool:
    give_up = time.monotonic() + seconds
    while not is_so() and time.monotonic() < give_up:
        time.sleep(0.02)
    return is_so()


def shared_memory_of(owner: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"hybrid-router-{owner}-*"))


def test_digits_answers_as_measured(client: triton.InferenceServerClient, holdout: Tensors) -> None:
    correct = 0
    for start in range(0, len(holdout["labels"]), BATCH):
        pixels, labels = (holdout[name][start : start + BATCH] for name in ("pixels", "labels"))
        answer = infer(client, "digits", {"pixels": pixels}, ["label", "probabilities"])
        assert answer["label"].shape == (len(labels), 1)
        assert answer["probabilities"].shape == (len(labels), 10)
        np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, atol=1e-5)
        correct += int((answer["label"][:, 0] == labels).sum())
    assert correct == accuracy("digits")


def test_embed_gives_the_same_directions_as_the_file(client: triton.InferenceServerClient, holdout: Tensors) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    images = holdout["pixels"][:BATCH].reshape(-1, 8, 8)
    answer = infer(client, "embed", {"image": images}, ["embedding"])["embedding"]
    session = onnxruntime.InferenceSession(MODELS / "embed-cloud.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": images})
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-5)


def test_digits_image_reads_png_and_jpeg(client: triton.InferenceServerClient) -> None:
    jpeg = BytesIO()
    with Image.open(MODELS / "seven.png") as image:
        image.convert("RGB").save(jpeg, "JPEG")
    encoded = np.array([[(MODELS / "seven.png").read_bytes()], [jpeg.getvalue()]], dtype=object)
    answer = infer(client, "digits_image", {"image": encoded}, ["label"])
    assert answer["label"].tolist() == [[7], [7]]


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"no picture", "not a readable"),
        (b"", "not a readable"),
        ((MODELS / "seven.png").read_bytes()[:150], "not a readable"),
        (blank_png(5000), "5000 x 5000 pixels"),
        (bytes(5_000_000), "5000000 bytes"),
    ],
    ids=["text", "empty", "truncated", "bomb", "long"],
)
def test_a_bad_image_fails_alone(client: triton.InferenceServerClient, encoded: bytes, reason: str) -> None:
    good = np.array([[(MODELS / "seven.png").read_bytes()]], dtype=object)
    bad = np.array([[encoded]], dtype=object)

    def ask(image: NDArray[Any]) -> Tensors:
        return infer(client, "digits_image", {"image": image}, ["label"])

    with ThreadPoolExecutor(8) as threads:
        failing = [threads.submit(ask, bad) for _ in range(4)]
        working = [threads.submit(ask, good) for _ in range(12)]
        for future in failing:
            with pytest.raises(InferenceServerException, match=reason) as raised:
                future.result()
            assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert all(future.result()["label"].tolist() == [[7]] for future in working)


def test_listens_on_this_machine_only(cloud: TritonProcess) -> None:
    listening = "0A"
    addresses = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, port = local.partition(":")
            if state == listening:
                addresses[int(port, 16)] = address
    for number in (cloud.ports.grpc, cloud.ports.http, cloud.ports.metrics):
        assert addresses[number].endswith("0100007F")  # 127.0.0.1, or the same mapped into IPv6


def test_a_killed_server_leaves_nothing_and_starts_again(tmp_path: Path) -> None:
    with TritonProcess(ANY_PORTS, runtime=tmp_path) as cloud:
        ports, killed = cloud.ports, cloud.pid
        assert len(processes_of(f"{tmp_path}/backends")) > 3
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: not cloud.running)
        assert processes_of(str(tmp_path)) == []
        cloud.start()
        cloud.wait_ready()
        assert cloud.ports == ports
        assert cloud.pid != killed
    assert processes_of(str(tmp_path)) == []


def test_a_hung_server_is_stopped_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cloud.GRACE_S", 0.3)
    with TritonProcess(ANY_PORTS, runtime=tmp_path) as cloud:
        os.kill(cloud.pid, signal.SIGSTOP)
    assert processes_of(str(tmp_path)) == []


@pytest.mark.parametrize("victim", ["owner", "keeper"])
def test_a_killed_parent_leaves_nothing(victim: str) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=PROJECT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        server, runtime = owner.stdout.readline().decode().split()
        assert len(processes_of(f"{runtime}/backends")) > 3
        stat = Path(f"/proc/{server}/stat").read_text(encoding="ascii")
        keeper = int(stat.rpartition(")")[2].split()[1])
        os.kill(owner.pid if victim == "owner" else keeper, signal.SIGKILL)
        gone = eventually(lambda: not processes_of(f"{runtime}/backends"))
        owner.kill()
    assert gone
    assert eventually(lambda: not shared_memory_of(owner.pid))
    if victim == "owner":
        assert eventually(lambda: not Path(runtime).exists())
    else:
        shutil.rmtree(runtime)


def test_a_missing_environment_names_the_commands(tmp_path: Path) -> None:
    with pytest.raises(CloudUnavailable, match=r"-m venv .*nowhere.*--require-hashes -r deploy/triton/req"):
        TritonProcess(ANY_PORTS, environment=tmp_path / "nowhere").start()


def test_an_environment_without_the_wheel_says_what_it_lacks(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], check=True)
    with pytest.raises(CloudUnavailable, match="lacks nvidia-pytriton, numpy"):
        TritonProcess(ANY_PORTS, environment=tmp_path / "empty").start()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CloudUnavailable, match=f"port {port} .*choose another"):
            TritonProcess(CloudPorts(grpc=port, http=0, metrics=0)).start()


def test_a_server_that_ends_while_it_starts_tells_why(tmp_path: Path) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "config.pbtxt").write_text('backend: "nonsense"', encoding="utf-8")
    cloud = TritonProcess(ANY_PORTS, repository=tmp_path)
    cloud.start()
    with pytest.raises(CloudUnavailable, match=r"ended while it started.*nonsense"):
        cloud.wait_ready()
    assert not cloud.running
