"""What Prometheus sees of the models that run in this process: on what, which version, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from router.ports import Runtime


def runtime_metrics(runtimes: Mapping[tuple[str, str], Runtime]) -> Iterator[Metric]:
    """The metrics of these models, by model and backend."""
    where = ["model", "backend"]
    provider = GaugeMetricFamily(
        "hybrid_router_model_provider",
        "1 for the execution provider that runs the model, 0 for one that was preferred to it and does not.",
        labels=[*where, "provider"],
    )
    in_force = GaugeMetricFamily(
        "hybrid_router_model_file_in_force",
        "1 if the model file on disk is the version that answers.",
        labels=where,
    )
    swaps = CounterMetricFamily(
        "hybrid_router_model_swaps",
        "Versions of the model file that came up while the model was open, by what became of them.",
        labels=[*where, "result"],
    )
    for key, runtime in runtimes.items():
        provider.add_metric([*key, runtime.provider], 1)
        for missing in runtime.missing:
            provider.add_metric([*key, missing], 0)
        in_force.add_metric(key, float(not runtime.problem))
        swaps.add_metric([*key, "took over"], runtime.swaps)
        swaps.add_metric([*key, "refused"], runtime.refusals)
    yield provider
    yield in_force
    yield swaps
