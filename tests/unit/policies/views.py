"""Hand-made snapshots for the tests of single policies."""

from __future__ import annotations

from router.breaker import BreakerState
from router.device import Strain
from router.latency import LatencyPrediction, Quantiles
from router.snapshot import ModelView, Snapshot, TargetView
from router.types import Facts
from tests.unit.worlds import IMAGE_SPEC

SLO_S = 0.05


def target(
    backend: str,
    *,
    p50_s: float = 0.0,
    p95_s: float | None = 0.01,
    up: bool = True,
    takes_image: bool = False,
    per_byte: float = 0.0,
    samples: int = 100,
    usd: float = 0.0,
    spent: bool = False,
    strain: Strain = Strain.NORMAL,
) -> TargetView:
    """A target whose name says its site: `edge…` stands on the premises, all others in the cloud."""
    every = Quantiles(p50_s, max(p50_s, p95_s or 0.0), max(p50_s, p95_s or 0.0))
    return TargetView(
        backend=backend,
        model="m",
        variant="v1",
        site="on-premises" if backend.startswith("edge") else "cloud",
        takes_image=takes_image,
        breaker=BreakerState.CLOSED if up else BreakerState.OPEN,
        problem="its budget is spent" if spent else "" if up else "unplugged",
        retry_at=0.0,
        latency=None if p95_s is None else LatencyPrediction(every, every, every, per_byte, samples, every),
        in_flight=0,
        usd_per_inference=usd,
        usd_per_byte_out=0.0,
        spent=spent,
        strain=strain,
    )


def snapshot(*targets: TargetView, incumbent: str | None = None) -> Snapshot:
    """A snapshot of one model with an SLO of 50 ms; `phi` stays on the premises."""
    incumbents = {} if incumbent is None else dict.fromkeys((TENSORS, IMAGE, PHI), incumbent)
    sites = {"unclassified": frozenset({"on-premises", "cloud"}), "phi": frozenset({"on-premises"})}
    models = {"m": ModelView(SLO_S, IMAGE_SPEC, targets)}
    return Snapshot(1, 0.0, models, {("m", t.backend): t for t in targets}, sites, incumbents)


TENSORS = Facts("m", "unclassified", 256, False)
IMAGE = Facts("m", "unclassified", 256, True)
PHI = Facts("m", "phi", 256, False)
