"""The words and the orderings that policies share: who is up, who is fast enough, and how a plan explains itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from policies.hedge import Hedge, hedge_after
from router.plan import AcceptIf, Attempt
from router.snapshot import ModelView, TargetView
from router.types import Facts

GRACE = 1.1
"""An incumbent may miss the SLO by a tenth before it loses its place: a prediction at the line must not flap."""


def split_by_site(targets: Iterable[TargetView]) -> tuple[list[TargetView], list[TargetView]]:
    """Those on the premises, and those elsewhere; each in the given order."""
    local: list[TargetView] = []
    remote: list[TargetView] = []
    for target in targets:
        (local if target.local else remote).append(target)
    return local, remote


def up(targets: Iterable[TargetView]) -> list[TargetView]:
    """Those that requests may be sent to."""
    return [target for target in targets if target.available]


def attempt(
    target: TargetView,
    facts: Facts,
    model: ModelView,
    *,
    stages_here: bool = False,
    accept_if: AcceptIf | None = None,
    degraded: bool = False,
    hedge: Hedge | None = None,
) -> Attempt:
    """An attempt on this target. Image stages run here where they must, or where `stages_here` says so."""
    stage = facts.encoded_image and (stages_here or not target.takes_image)
    stages = model.image.names if stage and model.image else ()
    return Attempt(target.backend, target.variant, stages, accept_if, degraded, hedge_after(hedge, target, facts))


def why_down(targets: Sequence[TargetView]) -> str:
    """What is wrong with those that are not available, in words; empty if all are."""
    return "; ".join(
        f"{target.backend} is not asked ({target.problem})"
        if target.spent
        else f"{target.backend} is down ({target.problem})"
        for target in targets
        if not target.available
    )


def why_not_elsewhere(targets: Sequence[TargetView], facts: Facts, model: ModelView) -> str:
    """Why the cloud is not asked, given the permitted targets, none of which is both up and elsewhere."""
    if all(target.local for target in model.targets):
        return "nothing off the premises has this model"
    return why_down(targets) or f"data class {facts.data_class!r} keeps it on the premises"


def nobody(targets: Sequence[TargetView]) -> str:
    """Why there is nothing to try."""
    return why_down(targets) or "no backend of the model stands where this data class may go"


def misses(target: TargetView, facts: Facts, slo_p95_s: float) -> bool:
    """Whether its predicted P95 is above the SLO. Unknown latency is not a miss."""
    return target.latency is not None and target.latency.p95(facts.payload_bytes) > slo_p95_s


def meets(target: TargetView, facts: Facts, slo_p95_s: float) -> bool:
    """Whether its predicted P95 is within the SLO. Unknown latency is no promise."""
    return target.latency is not None and target.latency.p95(facts.payload_bytes) <= slo_p95_s


def predicted(target: TargetView, facts: Facts) -> str:
    """Its predicted P95 in words."""
    if target.latency is None:
        return f"{target.backend}'s P95 is not known yet"
    return f"{target.backend}'s predicted P95 is {target.latency.p95(facts.payload_bytes) * 1000:.1f} ms"


def seconds(target: TargetView, facts: Facts) -> float:
    """Its predicted median for this payload; infinite where nothing is known, so that it comes last."""
    return target.latency.p50(facts.payload_bytes) if target.latency is not None else math.inf


def usd(target: TargetView, facts: Facts) -> float:
    """What one row costs there, and sending this payload."""
    return target.usd_per_inference + (0.0 if target.local else facts.payload_bytes * target.usd_per_byte_out)


FEW_SAMPLES = 10
"""Below so many samples in a minute an estimate is worth a look at the real thing."""


def another_order(order: Sequence[TargetView]) -> list[TargetView]:
    """The order in which the first of those behind that is hardly known comes first; empty if all are known well.

    A device that is to be spared is not asked only to know it better.
    """
    for target in order[1:]:
        if not target.strain.spares and (target.latency is None or target.latency.samples < FEW_SAMPLES):
            return [target, *(other for other in order if other is not target)]
    return []
