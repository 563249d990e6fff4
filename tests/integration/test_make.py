"""`make run`, as a newcomer runs it: ready, a request that works when pasted, and nothing left after Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

from tests.gateway_process import ROOT, policy_text


def test_make_run(tmp_path: Path) -> None:
    ports = {"GRPC": "18301", "HTTP": "18300", "METRICS": "18302"}
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(f"grpc://127.0.0.1:{ports['GRPC']}"))
    environment = os.environ | {"HYBRID_ROUTER_PORT": "0", "HYBRID_ROUTER_POLICY": str(policy)}
    environment |= {f"HYBRID_ROUTER_DEMO_{name}_PORT": port for name, port in ports.items()}
    with subprocess.Popen(
        ["make", "run"],
        cwd=ROOT,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as make:
        assert make.stdout is not None
        too_long = threading.Timer(120, lambda: os.killpg(make.pid, signal.SIGKILL))
        too_long.start()
        said = ""
        try:
            for line in make.stdout:
                said += line
                if "Ctrl-C" in line:
                    break
            (curl,) = re.findall(r"^  (curl .*)$", said, re.MULTILINE)
            answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=30).stdout
            os.killpg(make.pid, signal.SIGINT)
            make.stdout.read()
            make.wait(timeout=20)
        finally:
            too_long.cancel()
    assert '"label":[7]' in answer, said
    assert '"backend":"cloud"' in answer, said
    left = subprocess.run(["pgrep", "--session", str(make.pid)], capture_output=True, text=True).stdout
    assert left == ""
    listening = subprocess.run(["pgrep", "-f", f"grpc-port={ports['GRPC']}"], capture_output=True, text=True).stdout
    assert listening == ""
