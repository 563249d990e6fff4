"""The route that a request took, as parameters of its answer: scalars only, since parameters do not nest.

Both fronts of the Open Inference Protocol write these, under the same names.
"""

from __future__ import annotations

from router.types import Route


def route_parameters(route: Route) -> dict[str, str | bool | int | float]:
    """The route in names and units of the wire: `attempts` is text such as `cloud: backend-timeout, edge: answered`."""
    cost_usd, bytes_out = 0.0, 0
    for record in route.attempts:
        cost_usd += record.cost_usd
        bytes_out += record.bytes_out
    return {
        "backend": route.backend,
        "policy": route.policy,
        "variant": route.variant,
        "degraded": route.degraded,
        "latency_ms": round(route.latency_s * 1000, 3),
        "cost_usd": cost_usd,
        "bytes_out": bytes_out,
        "reason": route.reason,
        "attempts": ", ".join([f"{record.backend}: {record.error or 'answered'}" for record in route.attempts]),
    }
