"""The worked cases, and workloads made up from anything sensible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

import planning
from planning.assumptions import make_workload
from planning.workload import OFFLINES, RESIDENCIES, Workload

EXAMPLES = Path(planning.__file__).parent / "examples"


def example(name: str) -> Workload:
    """A worked case, read from its file."""
    file = EXAMPLES / f"{name}.yaml"
    return planning.load_workload(file.read_bytes(), file.name)


def slow_but_best() -> Workload:
    """A workload for the edge by its points, though the edge takes three times its latency target."""
    return replace(example("cameras"), device_part="", sites=1, device_per_second=900.0)


workloads = st.builds(
    lambda target, edge, trip, size, billion, rate, concurrent, sites, residency, offline, audit, part, billing: (
        make_workload(
            "any",
            {
                "p95_target_ms": target,
                "edge_p95_ms": edge,
                "round_trip_ms": trip,
                "size_mb": size,
                "parameters_billion": billion,
                "rate_per_second": rate,
                "concurrent": concurrent,
                "sites": sites,
                "payload_bytes": 50_000.0,
                "residency": residency,
                "offline": offline,
                "local_audit": audit,
                "billing": billing,
                "node": "reference",
            }
            | ({"device_part": "filtering", "forwarded_share": 0.1} if part else {}),
            "made up",
        )
    ),
    st.floats(5, 5000),
    st.floats(1, 2000),
    st.floats(1, 300),
    st.floats(1, 20_000),
    st.sampled_from([0.0, 3.0, 7.0, 13.0]),
    st.floats(0.01, 5000),
    st.floats(1, 50_000),
    st.integers(1, 500),
    st.sampled_from(RESIDENCIES),
    st.sampled_from(OFFLINES),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["by-use", "always-on"]),
)
