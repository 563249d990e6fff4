"""The seven criteria, each scored 0 to 3 for the edge, the cloud and a split, with the threshold and the reason.

Pure: the same workload and costs give the same rows. 3 means made for it, 2 fine, 1 only just, 0 not.

A threshold is not the last word where figures are known. Latency is scored by the room that is left below the target;
the thresholds say how far an assumed figure is trusted: under 50 ms a cloud counts only if it was measured, from 50 to
150 ms assumed figures cannot score 3, above that they can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from planning.workload import Workload

Choice = Literal["edge", "cloud", "split"]
CHOICES: Final[tuple[Choice, ...]] = ("edge", "split", "cloud")
"""In the order in which a tie is decided, if costs are equal too."""

BEST = 3

DEVICE_LATENCY_MS = 50
CLOUD_LATENCY_MS = 150
SMALL_MODEL_MB = 300
SMALL_LLM_BILLION = 4
LARGE_LLM_BILLION = 7
LARGE_VRAM_GB = 32
MANY_CONCURRENT = 1_000
TOO_MANY_CONCURRENT = 10_000
AGREES_WITHIN = 1.1


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of the table.

    Args:
        points: 0 to 3.
        reason: Why.
    """

    points: int
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """One criterion.

    Args:
        criterion: What is judged.
        value: What it is here.
        threshold: Where the lines are.
        scores: The points of each choice.
    """

    criterion: str
    value: str
    threshold: str
    scores: Mapping[Choice, Score]


def rubric(workload: Workload, per_million: Mapping[Choice, float], permitted: Sequence[Choice]) -> tuple[Row, ...]:
    """All seven rows.

    Args:
        workload: What is judged.
        per_million: What a million inferences cost with each choice, at the workload's rate.
        permitted: The choices that no constraint rules out; the least cost is looked for among them.
    """
    return (
        _latency(workload),
        _size(workload),
        _throughput(workload),
        _residency(workload),
        _cost(per_million, permitted or CHOICES),
        _operations(workload),
        _failures(workload),
    )


def fits_device(workload: Workload) -> bool:
    """Whether the model can run on the device at all."""
    return (
        workload.parameters_billion <= LARGE_LLM_BILLION
        and workload.vram_gb <= LARGE_VRAM_GB
        and workload.memory_mb <= workload.device_memory_mb
    )


def _row(
    criterion: str, value: str, threshold: str, edge: tuple[int, str], cloud: tuple[int, str], split: tuple[int, str]
) -> Row:
    scores: dict[Choice, Score] = {"edge": Score(*edge), "cloud": Score(*cloud), "split": Score(*split)}
    return Row(criterion, value, threshold, scores)


def _latency(workload: Workload) -> Row:
    target = workload.p95_target_ms
    network = workload.is_measured("round_trip_ms") and workload.is_measured("cloud_compute_p95_ms")
    device = workload.is_measured("edge_p95_ms")
    if target < DEVICE_LATENCY_MS:
        caps = (BEST, 2 if network else 0, 2 if network else 0)
    elif target <= CLOUD_LATENCY_MS:
        caps = (BEST if device else 2, BEST if network else 2, BEST if network and device else 2)
    else:
        caps = (BEST, BEST, BEST)
    edge, cloud, split = workload.edge_p95_ms, workload.cloud_p95_ms(workload.payload_bytes), workload.split_p95_ms
    return _row(
        "latency",
        f"P95 target {target:g} ms",
        "< 50 ms: on the device; 50 to 150 ms: measure both; > 150 ms: the cloud will do",
        *(_room(expected, target, cap) for expected, cap in zip((edge, cloud, split), caps, strict=True)),
    )


def _room(expected_ms: float, target_ms: float, cap: int) -> tuple[int, str]:
    share = expected_ms / target_ms
    points = next((points for limit, points in ((0.6, 3), (0.85, 2), (1.0, 1)) if share <= limit), 0)
    digits = 0 if expected_ms >= 100 else 1
    reason = f"P95 of {expected_ms:,.{digits}f} ms is {share:.0%} of the target"
    if points > cap:
        reason += "; so near the network's own times only a measurement would count for more"
    return min(points, cap), reason


def _size(workload: Workload) -> Row:
    billion, size = workload.parameters_billion, workload.size_mb
    value = f"{size:g} MB" + (f", {billion:g} billion parameters" if billion else "")
    if not fits_device(workload):
        edge = (0, "does not fit the device")
        split = (2, f"the device does its part ({workload.device_part}), the model runs in the cloud")
        cloud = (BEST, "needs a GPU, or several")
    elif (billion and billion <= SMALL_LLM_BILLION) or (not billion and size < SMALL_MODEL_MB):
        edge, cloud = (BEST, "fits a Pi 5 with HAT"), (2, "fits any GPU, and leaves it mostly idle")
        split = (2, "small enough for both sides")
    else:
        edge, cloud = (1, "fits the device's memory, and not much else does"), (BEST, "fits a GPU")
        split = (2, "the light part here, the heavy one there")
    if not workload.device_part:
        split = (0, "there is no part that the device could do")
    threshold = "< 300 MB, or up to 4 B parameters, quantised: fits Pi 5 + HAT; > 7 B or > 32 GB VRAM: cloud"
    return _row("model size", value, threshold, edge, cloud, split)


def _throughput(workload: Workload) -> Row:
    concurrent = workload.concurrent_at_a_site
    load = workload.rate_per_second / (workload.device_per_second * workload.sites)
    value = f"{workload.rate_per_second:g}/s on average, {workload.concurrent:g} at once, {workload.sites} sites"
    used = f"{load:.0%} of a device at each site"
    if concurrent >= TOO_MANY_CONCURRENT:
        edge = (0, "10,000 at once and more are for the cloud only")
        cloud, split = (BEST, "a pool with batching"), (0, "for the cloud only, in part neither")
    elif concurrent >= MANY_CONCURRENT:
        edge = (1, "thousands at once need many devices")
        cloud, split = (BEST, "a pool with batching"), (2, "devices thin out what reaches the pool")
    else:
        limits = ((workload.device_utilisation, BEST), (1.0, 2), (4.0, 1))
        points = next((points for limit, points in limits if load <= limit), 0)
        edge = (points, used)
        cloud = (BEST if load > 1 else 2, "a pool takes it" if load > 1 else "a pool would take far more")
        split = (2, f"{workload.forwarded_share:.0%} of it reaches the cloud")
    threshold = "up to hundreds/s a device: edge; thousands at once at a site: cloud pool; 10,000 and more: cloud only"
    return _row("throughput", value, threshold, edge, cloud, split)


def _residency(workload: Workload) -> Row:
    edge = (BEST, "nothing leaves")
    if workload.residency == "stays":
        cloud, split = (0, "the data may not leave"), (0, "the data may not leave, in part neither")
    elif workload.residency == "redacted-only":
        cloud, split = (0, "raw data may not leave"), (BEST, "only what is redacted leaves")
    elif workload.local_audit:
        cloud, split = (1, "the cloud's decisions are not audited on the site"), (2, "the site sees what leaves")
    else:
        cloud, split = (BEST, "the data may leave"), (BEST, "the data may leave")
    value = workload.residency + (", audited locally" if workload.local_audit else "")
    return _row("residency", value, "may not leave, or must be audited locally: edge", edge, cloud, split)


def _cost(per_million: Mapping[Choice, float], among: Sequence[Choice]) -> Row:
    least = min(per_million[choice] for choice in among)

    def score(choice: Choice) -> tuple[int, str]:
        cost = per_million[choice]
        times = cost / least if least > 0 else (1.0 if cost == 0 else float("inf"))
        points = next((points for limit, points in ((AGREES_WITHIN, BEST), (2.0, 2), (5.0, 1)) if times <= limit), 0)
        if choice not in among:
            return points, f"{cost:,.2f} per million, were it permitted"
        return points, f"{cost:,.2f} per million, " + ("the least" if cost == least else f"{times:.2f} times the least")

    value = f"least {least:,.2f} per million"
    threshold = "computed: within a tenth of the least 3, twice 2, five times 1"
    return _row("cost", value, threshold, score("edge"), score("cloud"), score("split"))


def _operations(workload: Workload) -> Row:
    visits = workload.sites * workload.updates_per_month
    points = next((points for limit, points in ((10, BEST), (200, 2), (2000, 1)) if visits <= limit), 0)
    edge = (points, f"{visits:g} device updates a month to roll out, watch and roll back")
    cloud = (2, "one place to update; CI/CD, and lock-in") if points > 1 else (BEST, "one place to update, not a fleet")
    split = (max(1, min(points, 2)), "the heavy model changes in one place, but both sides are to be operated")
    value = f"{workload.sites} sites, {workload.updates_per_month:g} updates a month"
    return _row("operations", value, "updates a month over all devices: up to 10 3, 200 2, 2,000 1", edge, cloud, split)


def _failures(workload: Workload) -> Row:
    fallback = fits_device(workload)
    if workload.offline == "required":
        edge, cloud, split = (BEST, "works without a WAN"), (0, "cannot work offline"), (0, "its heavy part cannot")
    elif workload.offline == "degraded":
        with_fallback, without = (1, "a fallback on the device, degraded"), (0, "nothing answers in an outage")
        edge, cloud = (BEST, "an outage is not noticed"), with_fallback if fallback else without
        split = (2, "the device's part goes on, degraded") if fallback else without
    else:
        edge, cloud, split = (
            (2, "an outage is not noticed; a broken device is"),
            (2, "outages are tolerated"),
            (
                2,
                "outages are tolerated",
            ),
        )
    return _row("failure modes", f"offline: {workload.offline}", "must work offline: edge", edge, cloud, split)
