"""What Prometheus sees: counters and histograms fed as requests end, gauges read off the snapshot when it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.runtime_metrics import runtime_metrics
from app.series import Count, Counts, Distribution, Distributions
from router.breaker import BreakerState
from router.errors import Outcome, RouterError
from router.ports import Runtime
from router.purse import Purse
from router.snapshot import Snapshot, TargetView
from router.types import AttemptRecord, InferenceResponse, Route

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds. 50 and 150 ms are the lines between on-device, measure both, and cloud acceptable."""

DECISION_BUCKETS = (0.000005, 0.00001, 0.00002, 0.00003, 0.00005, 0.0001, 0.00025, 0.001, 0.01)


class Metrics:
    """Implements the engine's observer. Samples are looked up once for each kind of event, and then kept."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = self._counter("requests", "Requests that ended.", "model", "policy", "backend", "outcome")
        self._durations = self._histogram("request_duration_seconds", "From first byte to answer.", "model", "policy")
        self._attempts = self._counter("attempts", "Attempts on backends.", "model", "backend", "outcome", "error")
        self._phases = self._histogram(
            "attempt_duration_seconds", "Time of successful attempts, by phase.", "model", "backend", "phase"
        )
        self._fallbacks = self._counter(
            "fallbacks", "Attempts that a next one had to follow.", "model", "backend", "reason"
        )
        self._hedges = self._counter("hedges", "Attempts that began beside another.", "model", "backend", "result")
        self._retries = self._counter("retries", "Second attempts on a backend.", "model", "backend", "result")
        self._blocks = self._counter(
            "residency_blocks", "Attempts that the residency guard took out of a plan.", "backend", "data_class"
        )
        self._bytes_out = self._counter("bytes_out", "Payload bytes sent to a site.", "site", "backend")
        self._cost = self._counter("cost_usd", "Dollars spent, abandoned attempts included.", "model", "backend")
        self._errors = self._counter("errors", "Inference requests answered with an error, by its code.", "code")
        decision = Distributions("hybrid_router_decision_duration_seconds", "Time to plan a request.", DECISION_BUCKETS)
        self.registry.register(decision)
        self.planned = decision.of().observe
        self._routes: dict[tuple[str, str, str, bool], tuple[Count, Distribution]] = {}
        self._tries: dict[tuple[str, str, str, Outcome, str | None, bool], _Try] = {}

    def error_answered(self, error: RouterError) -> None:
        """A client was told of an error, its own mistakes included."""
        self._errors.of(error.code).value += 1

    def residency_blocked(self, backend: str, data_class: str) -> None:
        """The guard took a backend out of a plan."""
        self._blocks.of(backend, data_class).value += 1

    def answered(self, response: InferenceResponse) -> None:
        """A request got its answer."""
        route, model = response.route, response.model.name
        key = (model, route.policy, route.backend, route.degraded)
        counted = self._routes.get(key)
        if counted is None:
            counted = self._routes[key] = self._route(model, route)
        counted[0].value += 1
        counted[1].observe(route.latency_s)
        self._attempted(model, route.attempts)

    def failed(self, model: str, policy: str, error: RouterError, attempts: Sequence[AttemptRecord]) -> None:
        """A request ended in an error."""
        self._requests.of(model, policy, "", error.code).value += 1
        self._attempted(model, attempts)

    def hung_up(self, model: str, policy: str, attempts: Sequence[AttemptRecord]) -> None:
        """The client went away before the answer."""
        self._requests.of(model, policy, "", "hung-up").value += 1
        self._attempted(model, attempts)

    def _attempted(self, model: str, attempts: Sequence[AttemptRecord]) -> None:
        for position, record in enumerate(attempts, start=1):
            key = (model, record.backend, record.site, record.outcome, record.error, record.bytes_out > 0)
            tried = self._tries.get(key)
            if tried is None:
                tried = self._tries[key] = self._try(model, record)
            tried.count(record)
            if position < len(attempts):
                self._followed(model, record, attempts[position])

    def _followed(self, model: str, record: AttemptRecord, by: AttemptRecord) -> None:
        """Counts what an attempt was to those before it: a hedge, a retry or a fallback."""
        if by.role == "hedge":
            self._hedges.of(model, by.backend, "lost" if by.error else "won").value += 1
        elif by.role == "retry":
            self._retries.of(model, by.backend, by.error or "answered").value += 1
        else:
            self._fallbacks.of(model, record.backend, record.error or "").value += 1

    def _route(self, model: str, route: Route) -> tuple[Count, Distribution]:
        outcome = "degraded" if route.degraded else "ok"
        return (
            self._requests.of(model, route.policy, route.backend, outcome),
            self._durations.of(model, route.policy),
        )

    def _try(self, model: str, record: AttemptRecord) -> _Try:
        return _Try(
            attempts=self._attempts.of(model, record.backend, record.outcome.value, record.error or ""),
            cost=self._cost.of(model, record.backend),
            bytes_out=self._bytes_out.of(record.site, record.backend) if record.bytes_out else None,
            queue=self._phases.of(model, record.backend, "queue"),
            network=self._phases.of(model, record.backend, "network"),
            compute=self._phases.of(model, record.backend, "compute"),
            stages=self._phases.of(model, record.backend, "stages"),
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counts:
        counts = Counts(f"hybrid_router_{name}", text, *labels)
        self.registry.register(counts)
        return counts

    def _histogram(self, name: str, text: str, *labels: str) -> Distributions:
        distributions = Distributions(f"hybrid_router_{name}", text, BUCKETS, *labels)
        self.registry.register(distributions)
        return distributions


class _Try:
    """The samples of one kind of attempt."""

    __slots__ = ("_attempts", "_bytes_out", "_compute", "_cost", "_network", "_queue", "_stages")

    def __init__(
        self,
        attempts: Count,
        cost: Count,
        bytes_out: Count | None,
        queue: Distribution,
        network: Distribution,
        compute: Distribution,
        stages: Distribution,
    ) -> None:
        self._attempts = attempts
        self._cost = cost
        self._bytes_out = bytes_out
        self._queue = queue
        self._network = network
        self._compute = compute
        self._stages = stages

    def count(self, record: AttemptRecord) -> None:
        """Adds an attempt; phases that it did not have are left out."""
        self._attempts.value += 1
        if record.cost_usd:
            self._cost.value += record.cost_usd
        if self._bytes_out is not None:
            self._bytes_out.value += record.bytes_out
        if record.compute_s:
            self._compute.observe(record.compute_s)
            self._queue.observe(record.queue_s)
        if record.network_s:
            self._network.observe(record.network_s)
        if record.stages_s:
            self._stages.observe(record.stages_s)


class SnapshotCollector(Collector):
    """Gauges, read at scrape time from the snapshot that policies see: what is gone from it is gone from here.

    Args:
        snapshot: Gives the current snapshot.
        purses: Gives the backends' budgets.
        policy_file_valid: Says whether the policy file on disk is the one in force.
        runtimes: Gives what the models that run in this process run on, by model and backend.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        purses: Callable[[], Mapping[str, Purse]],
        policy_file_valid: Callable[[], bool],
        runtimes: Callable[[], Mapping[tuple[str, str], Runtime]],
    ) -> None:
        self._snapshot = snapshot
        self._purses = purses
        self._policy_file_valid = policy_file_valid
        self._runtimes = runtimes

    def collect(self) -> Iterator[Metric]:
        """All gauges."""
        snapshot = self._snapshot()
        yield _gauge("policy_generation", "Counts up with each policy file put in force.", snapshot.generation)
        yield _gauge(
            "policy_file_valid", "1 if the policy file on disk is the one in force.", int(self._policy_file_valid())
        )
        targets = tuple(snapshot.targets.values())
        yield _per_target("backend_up", "1 if requests may be sent.", targets, lambda t: float(t.available))
        yield _per_target("in_flight", "Calls under way.", targets, lambda t: float(t.in_flight))
        yield _per_target("usd_per_inference", "Price of a row, in dollars.", targets, lambda t: t.usd_per_inference)
        yield _per_target("waiting", "Requests that wait for their turn.", targets, lambda t: float(t.waiting))
        yield _per_target("concurrency_limit", "Calls that may be under way.", targets, lambda t: float(t.limit))
        yield from _budgets(self._purses())
        yield _breaker_states(targets)
        yield _predicted(targets)
        yield from runtime_metrics(self._runtimes())


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"hybrid_router_{name}", text)
    family.add_metric([], value)
    return family


def _per_target(
    name: str, text: str, targets: Sequence[TargetView], value: Callable[[TargetView], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"hybrid_router_{name}", text, labels=["model", "backend"])
    for target in targets:
        family.add_metric([target.model, target.backend], value(target))
    return family


def _budgets(purses: Mapping[str, Purse]) -> Iterator[GaugeMetricFamily]:
    left = GaugeMetricFamily(
        "hybrid_router_budget_left_usd", "What a backend may still cost: the less of day and month.", labels=["backend"]
    )
    spent = GaugeMetricFamily(
        "hybrid_router_budget_spent_usd", "What it cost so far, restarts included.", labels=["backend", "period"]
    )
    for backend, purse in purses.items():
        left.add_metric([backend], purse.left_usd or 0.0)
        spent.add_metric([backend, "day"], purse.spent_day_usd)
        spent.add_metric([backend, "month"], purse.spent_month_usd)
    yield left
    yield spent


def _breaker_states(targets: Sequence[TargetView]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "hybrid_router_breaker_state", "1 for the state that the breaker is in.", labels=["model", "backend", "state"]
    )
    for target in targets:
        for state in BreakerState:
            family.add_metric([target.model, target.backend, state.value], float(state is target.breaker))
    return family


def _predicted(targets: Sequence[TargetView]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "hybrid_router_predicted_latency_seconds",
        "Predicted latency of a call with an empty payload, network and compute apart.",
        labels=["model", "backend", "part", "quantile"],
    )
    for target in targets:
        if target.latency is None:
            continue
        parts = {"network": target.latency.network, "compute": target.latency.compute, "total": target.latency.total}
        for part, quantiles in parts.items():
            for quantile, value in zip(("0.5", "0.95", "0.99"), quantiles, strict=True):
                family.add_metric([target.model, target.backend, part, quantile], value)
    return family
