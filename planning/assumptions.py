"""What is assumed of what nobody said, and why. Pure; the result marks each such figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from planning.workload import Provenance, Serving, Workload


class Derived(NamedTuple):
    """A figure that is assumed in proportion to another.

    Args:
        origin: The other field.
        factor: What it is multiplied by.
        why: In words.
    """

    origin: str
    factor: float
    why: str


ASSUMED: Final[Mapping[str, tuple[float, str]]] = {
    "edge_p95_ms": (40.0, "reference figure: vision on a Pi 5 with HAT takes 25 to 40 ms end to end on a LAN"),
    "cloud_compute_p95_ms": (10.0, "a common figure for a batched vision model on a GPU; measure yours"),
    "round_trip_ms": (50.0, "the middle of the benchmark plan's 0 to 200 ms"),
    "uplink_mbit_per_second": (20.0, "a common business line"),
    "device_memory_mb": (8000.0, "a Raspberry Pi 5 with 8 GB"),
    "parameters_billion": (0.0, "not a language model"),
    "vram_gb": (0.0, "fits any GPU"),
    "concurrent": (1.0, "one request at a time"),
    "sites": (1, "one site"),
    "device_per_second": (25.0, "reference figure: 40 ms an inference"),
    "node_per_second": (200.0, "reference figure: a GPU node with batching"),
    "device_utilisation": (0.7, "some room for peaks"),
    "node_utilisation": (0.7, "some room for peaks"),
    "updates_per_month": (1.0, "one a month"),
    "forwarded_share": (1.0, "everything is forwarded"),
}

DERIVED: Final[Mapping[str, Derived]] = {
    "memory_mb": Derived("size_mb", 2.0, "twice the model's size"),
    "device_part_p95_ms": Derived("edge_p95_ms", 1.0, "as long as the whole model"),
    "device_part_per_second": Derived("device_per_second", 1.0, "as many as of the whole model"),
    "forwarded_bytes": Derived("payload_bytes", 1.0, "the whole payload"),
}


def make_workload(name: str, given: Mapping[str, Any], source: str, serving: Serving | None = None) -> Workload:
    """A workload of what was given and, for the rest, of what is assumed.

    Args:
        name: What it is called.
        given: Values by the field of `Workload`; sensible ones.
        source: Who gave them.
        serving: What a policy file needs.
    """
    values = {field: value for field, (value, _) in ASSUMED.items()} | dict(given)
    provenance = {field: Provenance("assumed", why) for field, (_, why) in ASSUMED.items()}
    for field, derived in DERIVED.items():
        if field not in given:
            values[field] = derived.factor * values[derived.origin]
            provenance[field] = Provenance("assumed", derived.why)
    provenance |= {field: Provenance("assumed", source) for field in given}
    return Workload(name=name, serving=serving, provenance=provenance, **values)
