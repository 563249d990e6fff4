"""What `/status`, `/policy` and `/models` answer: the engine's values in the words and units of the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from app.policy_file import PolicyFile
from policies.document import Problem
from router.deployment import Deployment, ModelEntry
from router.device import DeviceView
from router.engine import Engine
from router.latency import LatencyPrediction, Quantiles
from router.model import TensorSpec
from router.ports import Runtime
from router.purse import Purse
from router.snapshot import Snapshot, TargetView


def status(engine: Engine, problems: Sequence[Problem], now: float) -> dict[str, Any]:
    """The snapshot that policies see, the budgets, and what keeps the policy file from being in force.

    Times are milliseconds, money is dollars.
    """
    snapshot, runtimes = engine.snapshot, engine.runtimes
    return {
        "generation": snapshot.generation,
        "snapshot_age_ms": _ms(now - snapshot.taken_at),
        "models": {
            name: {
                "slo_p95_ms": _ms(model.slo_p95_s),
                "targets": [
                    _target(target, now) | _runtime(runtimes.get((name, target.backend))) for target in model.targets
                ],
            }
            for name, model in snapshot.models.items()
        },
        "device": _device(snapshot.device),
        "data_classes": {name: sorted(sites) for name, sites in snapshot.sites.items()},
        "budgets": {backend: _budget(purse) for backend, purse in engine.purses.items()},
        "ledger_problems": list(engine.ledger_problems),
        "policy_problems": [str(problem) for problem in problems],
    }


def readiness(snapshot: Snapshot, draining: bool) -> tuple[bool, dict[str, Any]]:
    """Whether any model can be answered and the process is not about to stop, and for each model by whom."""
    models = {
        name: [target.backend for target in model.targets if target.available]
        for name, model in snapshot.models.items()
    }
    ready = any(models.values()) and not draining
    return ready, {"ready": ready, "draining": draining, "models": models}


def policy(policy_file: PolicyFile, generation: int) -> dict[str, Any]:
    """What is in force, and whether the file on disk is it."""
    state = policy_file.state
    return {
        "generation": generation,
        "file": str(policy_file.path),
        "file_is_in_force": state.file_is_in_force,
        "problems": [
            {"line": problem.line, "field": problem.where, "message": problem.message} for problem in state.problems
        ],
        "in_force": {"sha256": state.sha256, "since": state.since.isoformat(timespec="seconds"), "text": state.text},
    }


def models(deployment: Deployment) -> dict[str, Any]:
    """The models, what they take and give, and where they run."""
    return {"models": {name: _model(entry) for name, entry in deployment.models.items()}}


def _model(entry: ModelEntry) -> dict[str, Any]:
    spec = entry.spec
    return {
        "version": spec.version,
        "inputs": {name: _tensor(tensor) for name, tensor in spec.inputs.items()},
        "outputs": {name: _tensor(tensor) for name, tensor in spec.outputs.items()},
        "image_stages": list(spec.image.names) if spec.image else None,
        "slo_p95_ms": _ms(entry.slo_p95_s),
        "deadline_ms": _ms(entry.deadline_s),
        "variants": {backend: variant.label for backend, variant in entry.variants.items()},
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype, "shape": list(spec.shape)}


def _target(target: TargetView, now: float) -> dict[str, Any]:
    return {
        "backend": target.backend,
        "variant": target.variant,
        "site": target.site,
        "available": target.available,
        "breaker": target.breaker.value,
        "problem": target.problem or None,
        "retry_in_ms": None if target.available else _ms(max(0.0, target.retry_at - now)),
        "in_flight": target.in_flight,
        "waiting": target.waiting,
        "limit": target.limit,
        "latency": _latency(target.latency) if target.latency else None,
        "usd_per_million": round(target.usd_per_inference * 1e6, 6),
        "egress_usd_per_gb": round(target.usd_per_byte_out * 1e9, 6),
    }


def _device(device: DeviceView) -> dict[str, Any]:
    """What its sensors say, null where there is none, and what follows from it."""
    return {"strain": device.strain.value, **asdict(device.health)}


def _runtime(runtime: Runtime | None) -> dict[str, Any]:
    """What a model that runs in this process runs on; nothing of one that runs elsewhere."""
    if runtime is None:
        return {}
    return {
        "runtime": {
            "provider": runtime.provider,
            "providers_missing": list(runtime.missing),
            "sha256": runtime.sha256,
            "golden_inputs_answered": runtime.golden,
            "swaps": runtime.swaps,
            "swaps_refused": runtime.refusals,
            "problem": runtime.problem or None,
        }
    }


def _budget(purse: Purse) -> dict[str, Any]:
    return {
        "usd_per_day": purse.budget.usd_per_day,
        "usd_per_month": purse.budget.usd_per_month,
        "when_spent": purse.budget.when_spent,
        "spent_day_usd": purse.spent_day_usd,
        "spent_month_usd": purse.spent_month_usd,
        "left_usd": purse.left_usd,
    }


def _latency(latency: LatencyPrediction) -> dict[str, Any]:
    return {
        "network_ms": _quantiles(latency.network),
        "compute_ms": _quantiles(latency.compute),
        "total_ms": _quantiles(latency.total),
        "ms_per_megabyte": _ms(latency.seconds_per_byte * 1e6),
        "samples": latency.samples,
    }


def _quantiles(quantiles: Quantiles) -> dict[str, float]:
    return {name: _ms(value) for name, value in zip(("p50", "p95", "p99"), quantiles, strict=True)}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
