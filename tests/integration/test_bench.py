"""A small benchmark as people run it: killed in the middle, gone on with, compared, and leaving nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from drills.owner import is_gone
from planning.bench.results import load_results
from planning.bench.stage import FOLDER_PREFIX
from tests.gateway_process import ROOT, GatewayProcess, policy_text
from tests.integration.test_cli import run, said

PLAN = """
version: 1
name: small
warm_up_s: 0.5
model: {make: {made_mb: 1, image_side: 32}}
subjects:
  local: {alone: edge}
  cloud: {alone: cloud}
networks: [{rtt_ms: 0}, {rtt_ms: 60}]
scenarios:
  bursty: {per_second: 30, seconds: 1, burst: 3, arrivals: random}
"""
ROWS = 32
OWN = """
version: 1
name: own
warm_up_s: 0.5
device_utilisation: 0.5
model: {{file: own.onnx, payload: payload.npz, name: digits}}
subjects:
  documents: {{policy: {{kind: cloud-primary}}}}
  pi: {{gateway: "{url}"}}
networks: [{{rtt_ms: 0, up_mbit_per_second: 1}}]
scenarios:
  single: {{per_second: 5, seconds: 2}}
"""
CELLS = ["local | no line | bursty", "cloud | 0 ms | bursty", "cloud | 60 ms | bursty"]


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def descendants_of(pid: int) -> list[int]:
    """Its children and theirs, while it lives."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [one for child in children for one in descendants_of(int(child))]


def test_a_benchmark_that_is_killed_can_be_gone_on_with(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.yaml", tmp_path / "out.json"
    plan.write_text(PLAN)
    bench = subprocess.Popen(
        [sys.executable, "-m", "app", "bench", "run", str(plan), "--out", str(out)], cwd=ROOT, stderr=subprocess.PIPE
    )
    with bench:
        assert bench.stderr is not None
        assert bench.stderr.readline().startswith(b"1 of 3 | local")
        second = bench.stderr.readline()
        assert second.startswith(b"2 of 3 | cloud"), second + bench.stderr.read()  # the first is on the disk then
        left_behind = descendants_of(bench.pid)
        bench.kill()
    wait_for(lambda: not any(map(is_running, left_behind)), 10)
    before = load_results(out.read_bytes())
    assert [cell.key for cell in before.cells] == CELLS[:1]
    assert before.ended is None

    assert f"{out} exists." in said(run("bench", "run", plan, "--out", out), 1)
    done = run("bench", "run", plan, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 | cloud | 0 ms" in done.stderr
    assert "cloud    60 ms" in done.stdout

    after = load_results(out.read_bytes())
    assert [cell.key for cell in after.cells] == CELLS
    assert after.cells[0] == before.cells[0]
    assert after.ended is not None
    assert after.model.note.startswith("Untrained weights")
    assert 0.95 < after.model.size_mb < 1.15
    near, far = after.cells[1].summary, after.cells[2].summary
    for summary in (near, far):
        assert 24 <= summary.sent <= 36
        assert summary.latency_ms is not None
        assert summary.compute_ms is not None
        assert summary.network_ms is not None
        assert summary.usd_per_million is not None
        assert summary.usd_per_million > 2.7  # a node's share, and egress
    assert far.latency_ms is not None
    assert far.network_ms is not None
    assert far.latency_ms.p50 >= 60
    assert far.network_ms.p50 >= 59
    assert not [
        path for path in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}-*") if is_gone(path.name, FOLDER_PREFIX)
    ]

    assert json.loads(said(run("bench", "compare", out, out, "--json")))["cells"][0]["key"] == CELLS[0]
    plan.write_text(PLAN.replace("rtt_ms: 60", "rtt_ms: 70"))
    refused = run("bench", "run", plan, "--out", out, "--resume")
    assert refused.returncode == 1
    assert "is of another plan" in refused.stderr


def is_running(pid: int) -> bool:
    """Whether a process is more than remains that nobody has collected yet."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def test_a_model_of_ones_own_through_a_policy_over_a_narrow_line_and_on_a_live_device(tmp_path: Path) -> None:
    pixels = np.load(ROOT / "deploy/models/digits-holdout.npz")["pixels"][:ROWS].astype(np.float32)
    np.savez(tmp_path / "payload.npz", pixels=pixels)
    (tmp_path / "own.onnx").write_bytes((ROOT / "deploy/models/digits-edge.onnx").read_bytes())
    board = tmp_path / "device/usr/bin/vcgencmd"
    board.parent.mkdir(parents=True)
    board.write_text("#!/bin/sh\necho '    3V7_WL_SW_A current(0)=1.0A'\necho '    3V7_WL_SW_V volt(8)=3.7V'\n")
    board.chmod(0o755)
    policy, plan, out = tmp_path / "policy.yaml", tmp_path / "plan.yaml", tmp_path / "out.json"
    policy.write_text(policy_text("grpc://127.0.0.1:1"))
    with GatewayProcess(policy, {"HYBRID_ROUTER_DEVICE_ROOT": str(tmp_path / "device")}) as pi:
        pi.wait_until(lambda gateway: gateway.http.get("/status").json()["device"]["power_w"] is not None)
        plan.write_text(OWN.format(url=pi.url))
        done = run("bench", "run", plan, "--out", out)
    assert done.returncode == 0, done.stderr

    policy_cell, live_cell = load_results(out.read_bytes()).cells
    assert policy_cell.key == "documents | 0 ms 1 Mbit/s | single"
    (one,) = policy_cell.rounds
    assert (one.backends, one.errors) == ({"cloud": 10}, {})
    assert one.bytes_out >= 10 * pixels.nbytes
    network = policy_cell.summary.network_ms
    assert network is not None
    assert network.p50 >= pixels.nbytes * 8 / 1e6 * 1000 * 0.9  # the line is no faster than it was said to be

    summary = live_cell.summary
    assert (live_cell.key, summary.answered) == ("pi | no line | single", 10)
    assert summary.joules_estimated
    assert summary.joules_per_inference is not None
    seconds = summary.joules_per_inference * 10 / (1.1451 * 3.7 + 0.5879)
    assert 0.8 < seconds < 5
    assert "an estimate" in done.stdout
    assert "a device as used 50%, a node 70%" in done.stdout


def test_a_payload_that_does_not_fit_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    (tmp_path / "own.onnx").write_bytes((ROOT / "deploy/models/digits-edge.onnx").read_bytes())
    (tmp_path / "payload.npz").write_bytes(b"PK\3\4 torn")
    plan.write_text(OWN.format(url="http://127.0.0.1:9"))
    text = said(run("bench", "run", plan), 1)
    assert "payload.npz cannot be read: it is no .npz file, or only a part of one." in text
    assert "Traceback" not in text


def test_a_plan_with_nonsense_is_refused_in_a_sentence(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.replace("per_second: 30", "per_second: 0"))
    text = said(run("bench", "run", plan), 1)
    assert "scenarios.bursty.per_second: 0 is not sensible; it must be above 0" in text
    assert "line" in text


def test_ctrl_c_ends_it_in_order(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.yaml", tmp_path / "out.json"
    plan.write_text(PLAN.replace("seconds: 1", "seconds: 60"))
    with subprocess.Popen(
        [sys.executable, "-m", "app", "bench", "run", str(plan), "--out", str(out)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would what the tests start from one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as bench:
        assert bench.stderr is not None
        assert bench.stderr.readline().startswith("1 of 3 | local")
        wait_for(lambda: len(descendants_of(bench.pid)) >= 1, 10)
        left_behind = descendants_of(bench.pid)
        bench.send_signal(signal.SIGINT)
        said_last = bench.stderr.read()
    assert "Interrupted. Nothing was measured yet." in said_last
    assert bench.returncode == 1
    wait_for(lambda: not any(map(is_running, left_behind)), 10)
