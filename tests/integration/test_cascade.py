"""The claim of docs/cascade.md, through the gateway."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.gateway_process import ROOT, GatewayProcess
from tests.perf.cascade import measure


@pytest.mark.parametrize("threshold", [0.7, 0.95])
def test_large_models_accuracy_at_under_a_third_of_its_calls(
    gateway: GatewayProcess, holdout: tuple[np.ndarray, np.ndarray], threshold: float
) -> None:
    pixels, labels = holdout
    gateway.wait_until(lambda g: len(g.http.get("/readyz").json()["models"]["digits"]) == 2)
    point = measure(gateway, pixels, labels, threshold)
    large = json.loads((ROOT / "deploy/models/accuracy.json").read_text())["digits"]["cloud"]["correct"]
    assert point.correct >= large
    assert 0 < point.to_cloud < len(labels) / 3
    documented = f"| {threshold:g} | {point.to_cloud} of {len(labels)} | {point.to_cloud / len(labels):.1%} |"
    assert documented in (ROOT / "docs/cascade.md").read_text()
