"""The route that a request took, as parameters of its answer: scalars only, since parameters do not nest.

Both fronts of the Open Inference Protocol write these, under the same names.
"""

from __future__ import annotations

from functools import lru_cache

from app.codec.template import opened, shortest
from router.types import Route

Attempts = tuple[tuple[str, str | None], ...]
"""Who was asked, and the error that each of them ended in."""


def route_parameters(route: Route) -> dict[str, str | bool | int | float]:
    """The route in names and units of the wire: `attempts` is text such as `cloud: backend-timeout, edge: answered`."""
    cost_usd, bytes_out, attempts = _summed(route)
    return {
        **_words(route.policy, route.backend, route.variant, route.degraded, route.reason, attempts),
        "latency_ms": round(route.latency_s * 1000, 3),
        "cost_usd": cost_usd,
        "bytes_out": bytes_out,
    }


def route_parameters_json(route: Route) -> bytes:
    """The same as JSON."""
    cost_usd, bytes_out, attempts = _summed(route)
    template = _template(route.policy, route.backend, route.variant, route.degraded, route.reason, attempts)
    return template % (route.latency_s * 1000, shortest(cost_usd), bytes_out)


def _summed(route: Route) -> tuple[float, int, Attempts]:
    cost_usd, bytes_out = 0.0, 0
    attempts: list[tuple[str, str | None]] = []
    for record in route.attempts:
        cost_usd += record.cost_usd
        bytes_out += record.bytes_out
        attempts.append((record.backend, record.error))
    return cost_usd, bytes_out, tuple(attempts)


def _words(
    policy: str, backend: str, variant: str, degraded: bool, reason: str, attempts: Attempts
) -> dict[str, str | bool | int | float]:
    return {
        "backend": backend,
        "policy": policy,
        "variant": variant,
        "degraded": degraded,
        "reason": reason,
        "attempts": ", ".join([f"{asked}: {error or 'answered'}" for asked, error in attempts]),
    }


@lru_cache(maxsize=1024)
def _template(policy: str, backend: str, variant: str, degraded: bool, reason: str, attempts: Attempts) -> bytes:
    words = _words(policy, backend, variant, degraded, reason, attempts)
    return opened({**words}) + b'"latency_ms":%.3f,"cost_usd":%b,"bytes_out":%d}'
