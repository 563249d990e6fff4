"""`POST /route/explain`: the plan that a request would get, and what is predicted of it."""

from __future__ import annotations

from typing import Any

import orjson

from router.engine import Engine
from router.plan import Attempt
from router.snapshot import TargetView
from router.types import EncodedImage, Facts, InferenceRequest, row_count


def explain(engine: Engine, request: InferenceRequest) -> bytes:
    """The plan for a request as JSON; nothing is executed.

    Times are milliseconds, the prediction is for this payload, `null` where nothing is known yet. `cost_usd` is what
    this attempt alone would cost if it were made.
    """
    prepared = engine.prepare(request)
    facts = prepared.facts
    size, rows = request.payload_bytes, row_count(request.payload, prepared.model.spec)
    targets = engine.snapshot.targets
    return orjson.dumps(
        {
            "id": request.id,
            "model": request.model,
            "data_class": request.data_class,
            "policy": prepared.policy,
            "generation": engine.snapshot.generation,
            "reason": prepared.plan.reason,
            "deadline_ms": _ms((request.deadline or request.arrived + prepared.model.deadline_s) - request.arrived),
            "plan": [
                _attempt(attempt, targets[request.model, attempt.backend], facts, request, size, rows)
                for attempt in prepared.plan.attempts
            ],
            "left_out": _left_out(engine, facts, prepared.plan.attempts, prepared.blocked),
        }
    )


def _attempt(
    attempt: Attempt, target: TargetView, facts: Facts, request: InferenceRequest, size: int, rows: int
) -> dict[str, Any]:
    latency = target.latency
    # What leaves is the file as it came; once the stages have run here, how much is left of it is not known yet.
    staged = isinstance(request.payload, EncodedImage) and bool(attempt.stages)
    bytes_out = 0 if target.local else None if staged else size
    return {
        "backend": attempt.backend,
        "variant": attempt.variant,
        "site": target.site,
        "stages": attempt.stages,
        "accept_if": {"confidence": attempt.accept_if.confidence} if attempt.accept_if else None,
        "degraded": attempt.degraded,
        "hedge_after_ms": None if attempt.hedge_after is None else _ms(attempt.hedge_after),
        "reserve_ms": _ms(attempt.reserve_s),
        "predicted": {
            "p50_ms": _ms(latency.p50(facts.payload_bytes)),
            "p95_ms": _ms(latency.p95(facts.payload_bytes)),
            "p99_ms": _ms(latency.p99(facts.payload_bytes)),
        }
        if latency
        else None,
        "cost_usd": rows * target.usd_per_inference + (bytes_out or 0) * target.usd_per_byte_out,
        "bytes_out": bytes_out,
    }


def _left_out(
    engine: Engine, facts: Facts, attempts: tuple[Attempt, ...], blocked: tuple[str, ...]
) -> list[dict[str, str]]:
    planned = {attempt.backend for attempt in attempts}
    permitted = {target.backend for target in engine.snapshot.candidates(facts)}
    reasons = []
    for target in engine.snapshot.models[facts.model].targets:
        if target.backend in planned:
            continue
        if target.backend not in permitted or target.backend in blocked:
            why = f"data class {facts.data_class!r} may not go to {target.site}"
        else:
            why = target.problem or "the policy does not need it"
        reasons.append({"backend": target.backend, "why": why})
    return reasons


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
