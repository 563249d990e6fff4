"""Several observers of the engine as one."""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import RouterError
from router.ports import Observer
from router.types import AttemptRecord, InferenceResponse


class Observers:
    """Implements the engine's observer: tells each of them, in order.

    Args:
        observers: Whom to tell.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def planned(self, seconds: float) -> None:
        """A request was planned, in this many seconds."""
        for observer in self._observers:
            observer.planned(seconds)

    def residency_blocked(self, backend: str, data_class: str) -> None:
        """The guard took a backend out of a plan."""
        for observer in self._observers:
            observer.residency_blocked(backend, data_class)

    def answered(self, response: InferenceResponse) -> None:
        """A request got its answer."""
        for observer in self._observers:
            observer.answered(response)

    def failed(self, model: str, policy: str, error: RouterError, attempts: Sequence[AttemptRecord]) -> None:
        """A request that named a known model ended in an error."""
        for observer in self._observers:
            observer.failed(model, policy, error, attempts)

    def hung_up(self, model: str, policy: str, attempts: Sequence[AttemptRecord]) -> None:
        """The client of a request went away before the answer."""
        for observer in self._observers:
            observer.hung_up(model, policy, attempts)
