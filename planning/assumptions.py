"""What is assumed of what nobody said, and why. Pure; the result marks each such figure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from planning.ranges import RANGES
from planning.workload import FIGURES, SECOND_IN_MS, Provenance, Serving, Workload

MEMORY_OVER_SIZE = 2.0
DEVICE_PER_SECOND = 25.0


class Derived(NamedTuple):
    """A figure that is assumed from others.

    Args:
        of: What it is, of the others by field; within its range for whatever is within theirs.
        why: In words.
    """

    of: Callable[[Mapping[str, Any]], float]
    why: str


def _device_per_second(known: Mapping[str, Any]) -> float:
    return min(DEVICE_PER_SECOND, SECOND_IN_MS / float(known["edge_p95_ms"]))


def _device_part_per_second(known: Mapping[str, Any]) -> float:
    quicker: float = known["edge_p95_ms"] / known["device_part_p95_ms"]
    many: float = min(known["device_per_second"] * quicker, RANGES["device_part_per_second"].high)
    return max(many, sys.float_info.min)


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
    "node_per_second": (200.0, "reference figure: a GPU node with batching"),
    "device_utilisation": (0.7, "some room for peaks"),
    "node_utilisation": (0.7, "some room for peaks"),
    "updates_per_month": (1.0, "one a month"),
    "forwarded_share": (1.0, "everything is forwarded"),
}

DERIVED: Final[Mapping[str, Derived]] = {
    "memory_mb": Derived(lambda known: MEMORY_OVER_SIZE * known["size_mb"], "twice the model's size"),
    "device_per_second": Derived(
        _device_per_second, "one after the other, each in edge_p95_ms; no more than the reference figure, 25"
    ),
    "device_part_p95_ms": Derived(lambda known: float(known["edge_p95_ms"]), "as long as the whole model"),
    "device_part_per_second": Derived(
        _device_part_per_second, "as many as of the whole model, and as many times more as it is quicker"
    ),
    "forwarded_bytes": Derived(lambda known: float(known["payload_bytes"]), "the whole payload"),
}
"""Each after those that it is assumed from."""


def make_workload(name: str, given: Mapping[str, Any], source: str, serving: Serving | None = None) -> Workload:
    """A workload of what was given and, for the rest, of what is assumed.

    Args:
        name: What it is called.
        given: Values by the field of `Workload`; sensible ones.
        source: Who gave them.
        serving: What a policy file needs.
    """
    provenance = {field: Provenance("assumed", why) for field, (_, why) in ASSUMED.items()}
    provenance |= {field: Provenance("assumed", derived.why) for field, derived in DERIVED.items()}
    provenance |= {field: Provenance("assumed", source) for field in given}
    return Workload(name=name, serving=serving, provenance=provenance, **completed(given))


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and what is then assumed of the rest.

    Args:
        given: Values by the field of `Workload`; what others are assumed from is among them, unless it is assumed too.
    """
    values = {field: value for field, (value, _) in ASSUMED.items()} | dict(given)
    for field, derived in DERIVED.items():
        if field not in given:
            values[field] = derived.of(values)
    return values


def assumed_anew(workload: Workload) -> Workload:
    """The workload once figures of it have been measured: what nobody said follows them."""
    known = {field: getattr(workload, field) for field in FIGURES}
    followed: dict[str, Any] = {}
    for field, derived in DERIVED.items():
        if workload.provenance.get(field) == Provenance("assumed", derived.why):
            known[field] = followed[field] = derived.of(known)
    return replace(workload, **followed)
