"""Which input would change the recommendation, and how far it would have to move. Searched, not guessed.

Invariants:

- Each flip was tried: the workload with that one value, all others as they are, is judged as the flip says.
- Walking from the present value in steps of `STEP`, nothing nearer changes the recommendation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from planning.assumptions import MEMORY_OVER_SIZE
from planning.ranges import RANGES
from planning.rubric import Choice
from planning.total_cost import BILLINGS
from planning.workload import OFFLINES, RESIDENCIES, Workload

STEP = 10 ** (1 / 16)
FARTHEST = 1000.0
"""An input that would have to move by a larger factor than this is taken for one that cannot flip it."""
FROM_NOTHING = 1e-4
"""Where a search that starts at 0 begins, as a share of the greatest sensible value."""
BISECTIONS = 20

NUMBERS: Final = (
    *("p95_target_ms", "edge_p95_ms", "cloud_compute_p95_ms", "round_trip_ms", "uplink_mbit_per_second"),
    *("size_mb", "memory_mb", "device_memory_mb", "parameters_billion", "vram_gb"),
    *("rate_per_second", "concurrent", "sites", "device_per_second", "node_per_second"),
    *("device_utilisation", "node_utilisation", "updates_per_month", "payload_bytes"),
    *("device_part_p95_ms", "device_part_per_second", "forwarded_share", "forwarded_bytes"),
)

WORDS: Final[dict[str, tuple[Any, ...]]] = {
    "residency": RESIDENCIES,
    "offline": OFFLINES,
    "local_audit": (False, True),
    "billing": BILLINGS,
}

Recommend = Callable[[Workload], Choice | None]


@dataclass(frozen=True, slots=True)
class Flip:
    """One input that would change the recommendation.

    Args:
        field: Which.
        now: Its present value.
        at: The nearest value found at which the recommendation is another.
        becomes: What it is then; None where nothing would be left.
        factor: How far away that is, as a factor above 1; None for words.
    """

    field: str
    now: Any
    at: Any
    becomes: Choice | None
    factor: float | None


def flips(workload: Workload, recommend: Recommend) -> tuple[Flip, ...]:
    """All that would, numbers first, the nearest first."""
    present = recommend(workload)
    found = [*_numbers(workload, present, recommend), *_words(workload, present, recommend)]
    return tuple(sorted(found, key=lambda flip: (flip.factor is None, flip.factor or 0.0)))


def varied(workload: Workload, field: str, value: Any) -> Workload:
    """The workload with another value. A larger model takes more memory; one of fewer parameters is smaller."""
    if field == "size_mb":
        return replace(workload, size_mb=value, memory_mb=_memory(workload, value))
    if field == "parameters_billion":
        times = value / workload.parameters_billion
        size = min(workload.size_mb * times, RANGES["size_mb"].high)
        return replace(
            workload,
            parameters_billion=value,
            size_mb=size,
            memory_mb=_memory(workload, size),
            vram_gb=min(workload.vram_gb * times, RANGES["vram_gb"].high),
        )
    return replace(workload, **{field: value})


def _memory(workload: Workload, size_mb: float) -> float:
    """What is beside the weights stays; what holds them follows."""
    memory_mb = max(size_mb, workload.memory_mb + MEMORY_OVER_SIZE * (size_mb - workload.size_mb))
    return min(memory_mb, RANGES["memory_mb"].high)


def _words(workload: Workload, present: Choice | None, recommend: Recommend) -> Iterator[Flip]:
    for field, values in WORDS.items():
        now = getattr(workload, field)
        for value in values:
            becomes = present if value == now else recommend(varied(workload, field, value))
            if becomes != present:
                yield Flip(field, now, value, becomes, None)


def _numbers(workload: Workload, present: Choice | None, recommend: Recommend) -> Iterator[Flip]:
    for field in NUMBERS:
        now = getattr(workload, field)
        if field == "parameters_billion" and now == 0:
            continue  # whether it is a language model is no matter of degree
        if not workload.device_part and field.startswith(("device_part", "forwarded")):
            continue
        for upwards in (False, True):
            before = now
            for value in _walk(field, now, upwards):
                if recommend(varied(workload, field, value)) != present:
                    yield _nearest(workload, field, before, value, recommend)
                    break
                before = value


def _walk(field: str, now: float, upwards: bool) -> Iterator[float]:
    """Sensible values away from the present one, each a step further; the last is the end of the range."""
    sensible = RANGES[field]
    end = sensible.high if upwards else sensible.low
    if now == end:
        return
    value = now or sensible.high * FROM_NOTHING
    limit = value * FARTHEST if upwards else value / FARTHEST
    if not now:
        yield value
    while True:
        value = value * STEP if upwards else value / STEP
        if value > min(end, limit) if upwards else value < max(end, limit):
            break
        whole = math.ceil(value) if upwards else math.floor(value)
        yield whole if sensible.whole else value
    if field == "parameters_billion" and not upwards:
        return  # 0 is no small language model, but none
    if (end <= limit if upwards else end >= limit or end == 0) and end in sensible:
        yield int(end) if sensible.whole else end


def _nearest(workload: Workload, field: str, stays: float, flips_at: float, recommend: Recommend) -> Flip:
    """Halves the way between a value that changes nothing and one that does, as long as that makes a difference."""
    now = getattr(workload, field)
    present = recommend(workload)
    whole = RANGES[field].whole
    for _ in range(BISECTIONS):
        middle: float = (stays + flips_at) / 2
        if whole:
            middle = float(math.floor(middle))
            if middle in (stays, flips_at):
                break
        if recommend(varied(workload, field, middle)) == present:
            stays = middle
        else:
            flips_at = middle
    at = _rounded(flips_at, now, lambda value: recommend(varied(workload, field, value)) != present, field)
    becomes = recommend(varied(workload, field, at))
    factor = math.inf if 0 in (at, now) else max(at / now, now / at)
    return Flip(field, now, at, becomes, factor)


def _rounded(value: float, now: float, is_flipped: Callable[[float], bool], field: str) -> float:
    """The value in as few digits as still flip, rounded away from the present one."""
    if RANGES[field].whole or value == 0:
        return value
    for digits in (2, 3, 4):
        unit = 10 ** (math.floor(math.log10(abs(value))) - digits + 1)
        steps = value / unit
        nearby: float = round((math.ceil(steps) if value > now else math.floor(steps)) * unit, 12)
        if nearby in RANGES[field] and is_flipped(nearby):
            return nearby
    return value
