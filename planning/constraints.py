"""What decides alone: a choice that breaks one of these is out, whatever its score. Pure.

The choices that are left over may be none; then the workload contradicts itself, and the broken constraints say how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from planning.rubric import LARGE_LLM_BILLION, LARGE_VRAM_GB, TOO_MANY_CONCURRENT, Choice, fits_device
from planning.workload import Workload


@dataclass(frozen=True, slots=True)
class Constraint:
    """One that is broken.

    Args:
        name: Which.
        excludes: What it rules out.
        reason: Why.
    """

    name: str
    excludes: Choice
    reason: str


def broken_constraints(workload: Workload) -> tuple[Constraint, ...]:
    """Everything that rules a choice out."""
    return tuple(_broken(workload))


def _broken(workload: Workload) -> Iterator[Constraint]:
    if workload.residency != "may-leave":
        yield Constraint("residency", "cloud", "raw data may not leave the site")
    if workload.residency == "stays":
        yield Constraint("residency", "split", "the data may not leave the site, redacted neither")
    if not fits_device(workload):
        yield Constraint("does not fit", "edge", _why_it_does_not_fit(workload))
    if workload.concurrent_at_a_site >= TOO_MANY_CONCURRENT:
        at_once = f"{workload.concurrent_at_a_site:,g} at once at a site"
        reason = f"{at_once}; {TOO_MANY_CONCURRENT:,} and more are for the cloud only"
        yield Constraint("too many at once", "edge", reason)
        yield Constraint("too many at once", "split", reason)
    if not workload.device_part:
        yield Constraint("nothing to split", "split", "no part of the work is named that the device could do")
    if workload.offline == "required":
        yield Constraint("offline", "cloud", "it must work offline, and the cloud cannot")
        yield Constraint("offline", "split", "it must work offline, and the heavy part cannot")


def _why_it_does_not_fit(workload: Workload) -> str:
    if workload.parameters_billion > LARGE_LLM_BILLION:
        return f"{workload.parameters_billion:g} billion parameters; a device takes {LARGE_LLM_BILLION} at most"
    if workload.vram_gb > LARGE_VRAM_GB:
        return f"it needs {workload.vram_gb:g} GB of VRAM; above {LARGE_VRAM_GB} it is for the cloud"
    return f"it takes {workload.memory_mb:g} MB in memory; a device has {workload.device_memory_mb:g}"
