"""Results of benchmarks, made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planning.bench.plan import Network
from planning.bench.results import CellResults, ModelFacts, Results, Round


def a_round(latency_us: list[int], number: int = 0, **given: Any) -> Round:
    times = tuple(latency_us)
    empty = {"errors": {}, "backends": {"edge": len(times)}, "degraded": 0, "bytes_out": 0, "late_p99_us": 10}
    fields: dict[str, Any] = {
        "seed": 1,
        "cost_usd": 1e-6 * len(times),
        "energy_j": None,
        "began": "2026-11-24T10:00:00+00:00",
        "load": 0.5,
        "sent": len(times),
        **empty,
    }
    lists = {"latency_us": times, "compute_us": times, "network_us": times, "queue_us": times}
    return Round(round=number, **(fields | lists | given))


def results(cells: list[CellResults], **given: Any) -> Results:
    return replace(
        Results(
            began="2026-11-24T10:00:00+00:00",
            ended="2026-11-24T10:05:00+00:00",
            plan={"name": "mine", "seed": 1, "rounds": 1, "device_utilisation": 0.7, "node_utilisation": 0.4},
            plan_sha256="abc",
            machine={"processor": "one", "memory": "4.0 GiB", "busy at the start": "0.10"},
            model=ModelFacts("benchmark", "vision.onnx", 15.0, "00", "Untrained weights."),
            prices={"dated": "2026-11-24", "currency": "USD"},
            cells=tuple(cells),
        ),
        **given,
    )


def cell(latency_us: list[int], subject: str = "local", **given: Any) -> CellResults:
    return CellResults(subject, Network(50.0), "single", 5.0, (a_round(latency_us, **given),))
