"""A policy from another package: installed, named in the policy file, in force. It is the documentation's example."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from app.cloud import TritonProcess
from tests.gateway_process import ROOT, GatewayProcess, policy_text


def install(folder: Path, code: str) -> None:
    """Lays a package out as pip would."""
    (folder / "your_package").mkdir()
    (folder / "your_package/__init__.py").touch()
    (folder / "your_package/policies.py").write_text(code)
    metadata = folder / "your_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: your-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[hybrid_router.policies]\nleast-busy = your_package.policies:LeastBusy\n"
    )


def test_a_third_partys_policy(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess, tmp_path: Path
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/policies.md").read_text(), re.DOTALL)
    install(tmp_path, example)
    text = policy_text(triton.grpc_url).replace("documents: {kind: cloud-primary}", "documents: {kind: least-busy}")
    gateway = start_gateway(text, PYTHONPATH=str(tmp_path))
    gateway.wait_until(lambda g: len(g.http.get("/readyz").json()["models"]["digits"]) == 2)
    route = gateway.infer(model="digits", inputs={"pixels": [[0.0] * 64]})["route"]
    assert (route["backend"], route["reason"]) == ("cloud", "the least busy first")
    dearer = text.replace("node_usd_per_hour: 2.0", "node_usd_per_hour: 20.0")
    gateway.policy.write_text(dearer)
    gateway.wait_until(lambda g: g.http.get("/policy").json()["generation"] == 2)
    assert gateway.infer(model="digits", inputs={"pixels": [[0.0] * 64]})["route"]["backend"] == "edge"
