"""What load generators ask for: requests counted, and their times summed, per model since the process started.

Counts and sums only grow. A request is counted once, as answered or as failed; one whose client went away is neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.errors import Outcome, RouterError
from router.model import ModelSpec
from router.ports import Observer
from router.types import AttemptRecord, InferenceResponse


class ModelCounts:
    """The counts of one model.

    Attributes:
        answered: Requests that got an answer.
        failed: Requests that ended in an error.
        rows: Inferences in those that got an answer: their rows where the model is batchable.
        executions: Calls to backends that gave an answer.
        answered_s: Seconds from the first byte of a request to the end of execution, of those that got an answer.
        failed_s: Seconds spent on backends by those that failed.
        queue_s: Seconds that calls waited before work on them began.
        compute_s: Seconds of work.
        last_ms: When the latest answer was given, milliseconds since 1970; 0 before the first.
    """

    __slots__ = (
        "_batchable",
        "_spec",
        "answered",
        "answered_s",
        "compute_s",
        "executions",
        "failed",
        "failed_s",
        "last_ms",
        "queue_s",
        "rows",
    )

    def __init__(self) -> None:
        self._spec: ModelSpec | None = None
        self._batchable = False
        self.answered = 0
        self.failed = 0
        self.rows = 0
        self.executions = 0
        self.answered_s = 0.0
        self.failed_s = 0.0
        self.queue_s = 0.0
        self.compute_s = 0.0
        self.last_ms = 0

    def count(self, response: InferenceResponse) -> None:
        """Adds a request that got its answer."""
        spec = response.model
        if spec is not self._spec:
            self._spec, self._batchable = spec, spec.batchable
        self.answered += 1
        self.rows += len(next(iter(response.outputs.values()))) if self._batchable else 1
        self.answered_s += response.route.latency_s
        for record in response.route.attempts:
            if record.outcome is Outcome.SUCCESS:
                self.executions += 1
                self.queue_s += record.queue_s
                self.compute_s += record.compute_s


class Statistics:
    """Implements the engine's observer; it keeps the counts of every model that was ever asked.

    Args:
        epoch_ms: Gives milliseconds since 1970.
        then: Is told everything too.
    """

    def __init__(self, epoch_ms: Callable[[], int], then: Observer) -> None:
        self._epoch_ms = epoch_ms
        self._then = then
        self._models: dict[str, ModelCounts] = {}
        self.planned = then.planned
        self.residency_blocked = then.residency_blocked
        self.hung_up = then.hung_up

    def of(self, model: str) -> ModelCounts:
        """The counts of a model, whether it was asked yet or not."""
        counts = self._models.get(model)
        return ModelCounts() if counts is None else counts

    def answered(self, response: InferenceResponse) -> None:
        """A request got its answer."""
        self._then.answered(response)
        name = response.model.name
        counts = self._models.get(name) or self._counts(name)
        counts.count(response)
        counts.last_ms = self._epoch_ms()

    def failed(self, model: str, policy: str, error: RouterError, attempts: Sequence[AttemptRecord]) -> None:
        """A request ended in an error."""
        self._then.failed(model, policy, error, attempts)
        counts = self._counts(model)
        counts.failed += 1
        for record in attempts:
            counts.failed_s += record.stages_s + record.queue_s + record.network_s + record.compute_s

    def _counts(self, model: str) -> ModelCounts:
        return self._models.setdefault(model, ModelCounts())
