"""The overload scenario: finds out what the device can do, then asks ten times as much of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace

from drills.record import Sample
from drills.scene import LEAD_S, Scene
from drills.streams import SLOW

RAMP = (0.4, 0.6, 0.8, 1.0, 1.2)
"""Rates to try, as shares of what the cores could do if they did nothing else."""

RAMP_STEP_S = 3.0
TIMES = 10.0


async def overload(scene: Scene) -> None:
    """Goodput counts answers within the deadline, by when their request was due."""
    compute_s = await asyncio.to_thread(scene.gateway.compute_s, "slow", "edge")
    ideal = (os.cpu_count() or 1) / compute_s
    peak = 0.0
    for share in RAMP:
        scene.listener.phase(f"capacity at {share * ideal:.0f}/s", RAMP_STEP_S)
        samples = await _offer(scene, share * ideal, RAMP_STEP_S)
        peak = max(peak, goodput(samples, RAMP_STEP_S))
    seconds = scene.timing.during
    scene.listener.phase("fault", seconds)
    scene.began = scene.now() + LEAD_S
    samples = await _offer(scene, TIMES * peak, seconds)
    scene.samples += samples
    scene.end()
    admitted = sorted(sample.latency for sample in samples if sample.answered)
    scene.facts |= {
        "offered_per_s": TIMES * peak,
        "peak_goodput": peak,
        "goodput": goodput(samples, seconds),
        "slo_ms": SLOW.deadline_s * 1000,
        "p99_admitted_ms": admitted[-1 - len(admitted) // 100] * 1000 if admitted else float("inf"),
    }


def goodput(samples: Sequence[Sample], seconds: float) -> float:
    """Answers a second that came within their deadline."""
    return sum(sample.answered and sample.latency <= sample.deadline for sample in samples) / seconds


async def _offer(scene: Scene, per_second: float, seconds: float) -> Sequence[Sample]:
    """Offers the slow model's load at a rate; returns what became of it."""
    async with scene.load([replace(SLOW, per_second=per_second)], seconds) as load:
        await load.wait()
    return load.samples
