"""A model opened on a backend, with its health: what outlives a change of the policy file when it did not change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Self

from router.admission import Admission
from router.breaker import Breaker
from router.errors import BackendError, BackendTimeout, BackendUnavailable, Outcome, RouterError
from router.latency import LatencyEstimator
from router.limit import ConcurrencyLimit
from router.model import ModelSpec
from router.ports import Backend, RunsInline, Servable, VariantOptions, synthetic_call
from router.recent import size_class
from router.time_limits import TimeLimits
from router.types import ON_PREMISES, AttemptRecord, Reply

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 120.0
"""A large model on a slow card takes long to load; this only ends what will never end."""

PROBE_TIMEOUT_S = 0.3
"""A backend that does not say within this time that it is ready is as good as gone."""

USUAL_ROUND_TRIPS = 2
"""One whose round trip is long gets so many of them instead, and a tenth of a second."""

CONNECT_TIMEOUT_S = 1.0
"""The same where there may be no connection yet, which takes several round trips; nobody gets longer."""

MOST_WAITING = 256
"""Requests that may wait for their turn on one model of one backend."""

SYNTHETIC_TIMEOUT_S = 5.0
"""A made-up inference may take as long as a large model needs."""

KNOWN_SYNTHETIC_TIMEOUT_S = 1.0
"""Where it is known what most calls take, four times that is enough, and this."""

FIRST_SAMPLES = 5
"""Until there are so many, every probe is a made-up inference: a prediction does not rest on the first call alone."""

TRIAL_INTERVAL_S = 2.0
"""How often a call is made that is predicted not to fit, so that a prediction can be found wrong."""

CANCELLED = "cancelled"
"""How a record names the end of a call that was not waited for."""

PROBE_SLACK_S = 0.05
"""The backend's own deadline comes first, so that it learns of its failure rather than being cancelled."""


class Instance:
    """One model on one backend: how to ask it, and how it has been doing.

    Args:
        backend: The backend it is opened on.
        model: The model's spec.
        variant: The variant's options.
        servable: The opened model, or the error that opening it ended in.
        now: Monotonic seconds.

    Attributes:
        inline: The opened model, if it can run on the event loop itself.
        alarm: Set when its next probe may be due sooner than it was.
    """

    def __init__(
        self,
        backend: Backend,
        model: ModelSpec,
        variant: VariantOptions,
        servable: Servable | BackendError,
        now: float,
    ) -> None:
        self.backend = backend
        self.model = model
        self.variant = variant
        self._serve_with(servable)
        self.breaker = Breaker(now)
        self.latency = LatencyEstimator()
        self.admission = Admission(ConcurrencyLimit(), MOST_WAITING)
        self.unsettled = True
        self.limits = TimeLimits()
        self.alarm = asyncio.Event()
        self._asked_at: float | None = None
        self._tried: dict[int, float] = {}

    def _serve_with(self, servable: Servable | BackendError) -> None:
        self.servable = servable
        self.inline = servable if isinstance(servable, RunsInline) else None

    def serves(self, backend: Backend, model: ModelSpec, variant: VariantOptions) -> bool:
        """Whether it is what a policy file asks for, so that it can be kept, connection, health and all."""
        return self.backend is backend and self.model == model and self.variant == variant

    def settle(self, now: float) -> None:
        """Brings the prediction up to date, so that a view of it is true until it is `unsettled` again."""
        if self._asked_at is not None:
            self.latency.unanswered_for(now - self._asked_at)
        self.latency.refresh(now)
        self.unsettled = self._asked_at is not None

    async def probe(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """Probes it once and tells the breaker.

        It asks for readiness, and then for a synthetic inference where the breaker wants one, or where nobody was
        answered for so long that the prediction would come to rest on nothing.
        """
        synthetic = self.breaker.begin_probe() or not self.latency.fresh(clock(), FIRST_SAMPLES)
        self.unsettled = True
        try:
            reply = await self._probe_once(clock, synthetic)
        except Exception as error:
            self.breaker.probe_failed(clock(), random(), self._why(error))
        else:
            self._probed(reply, clock())
        finally:
            self.unsettled = True
            self.let_go()

    async def _probe_once(self, clock: Callable[[], float], synthetic: bool) -> Reply | None:
        """Asks for readiness, and if `synthetic` for a made-up inference too, whose reply it returns."""
        if isinstance(self.servable, BackendError):
            self._serve_with(await _open(self.backend, self.model, self.variant))
        if isinstance(self.servable, BackendError):
            raise self.servable
        seconds = self._patience_s()
        try:
            await self._ask(self.servable, clock, seconds)
            if not synthetic:
                return None
            seconds = self._synthetic_patience_s()
            async with asyncio.timeout(seconds + PROBE_SLACK_S):
                return await self.servable.probe(clock() + seconds, synthetic=True)
        except TimeoutError:
            raise BackendTimeout(f"did not answer a probe within {seconds:g} s") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise BackendUnavailable("its own library gave the probe up") from None

    def _why(self, error: Exception) -> str:
        """What a failed probe says of the backend."""
        if isinstance(error, BackendError):
            return error.detail
        log.error("probing %s raised what its contract does not allow", self.variant.label, exc_info=error)
        return f"probing it failed: {error}"

    def _probed(self, reply: Reply | None, now: float) -> None:
        """Takes in a probe that passed."""
        was_away = not self.breaker.admits
        self.breaker.probe_succeeded(now)
        if reply is None:
            return
        size = synthetic_call(self.model).payload_bytes
        if was_away:
            self.latency.vouched(size)
        self.latency.record(now, size, reply.network_s, reply.queue_s + reply.compute_s)

    def let_go(self) -> None:
        """Ends the wait of every call under way if the breaker is open: whoever waits has better things to do."""
        if not self.breaker.admits:
            self.limits.expire_all()

    def _patience_s(self) -> float:
        """How long a readiness probe may take."""
        if not self.breaker.admits:
            return CONNECT_TIMEOUT_S
        return min(CONNECT_TIMEOUT_S, max(PROBE_TIMEOUT_S, USUAL_ROUND_TRIPS * self.latency.round_trip_s + 0.1))

    def _synthetic_patience_s(self) -> float:
        """How long a made-up inference may take."""
        prediction = self.latency.prediction
        if prediction is None or prediction.completed is None:
            return SYNTHETIC_TIMEOUT_S
        size = synthetic_call(self.model).payload_bytes
        return min(SYNTHETIC_TIMEOUT_S, max(KNOWN_SYNTHETIC_TIMEOUT_S, 4 * prediction.mostly(size)))

    def may_try(self, now: float, payload_bytes: int) -> bool:
        """Whether a call that is predicted not to fit may be made all the same: now and then, for each size class."""
        key = size_class(payload_bytes)
        if now - self._tried.setdefault(key, now) < TRIAL_INTERVAL_S:
            return False
        self._tried[key] = now
        return True

    async def _ask(self, servable: Servable, clock: Callable[[], float], seconds: float) -> None:
        """Asks for readiness, which measures the round trip; while no answer comes, predictions grow with the wait."""
        self._asked_at = clock()
        try:
            async with asyncio.timeout(seconds + PROBE_SLACK_S):
                await servable.probe(self._asked_at + seconds, synthetic=False)
            self.latency.answered_after(clock() - self._asked_at)
        except BaseException:
            self.latency.never_answered()
            raise
        finally:
            self._asked_at = None

    async def close(self) -> None:
        """Closes the servable. Nothing is in flight when this is called."""
        if isinstance(self.servable, BackendError):
            return
        try:
            await self.servable.close()
        except Exception:  # what is being thrown away must not take the engine with it
            log.exception("closing %s failed", self.variant.label)


class Permit:
    """One call's leave to use an instance: on the way out, however that is, the instance learns how it went.

    It is given out after the instance's admission let the call in, and the way out of the block is its leaving.

    Invariants: the call is counted as in flight for exactly as long as the block lasts; breaker, limit and estimator
    are told exactly once. A cancelled call, and one that timed out because its caller gave it less time than the
    backend usually needs, move neither breaker nor limit. One that was cancelled after it took longer than most, such
    as the loser of a hedge, tells the estimator that it would have taken at least that long.

    Args:
        instance: What is called.
        record: Of the attempt; says afterwards how it ended.
        clock: Gives monotonic seconds.
        limit: When the call is cut off, monotonic seconds.
    """

    __slots__ = ("_clock", "_in_flight", "_instance", "_limit", "_record", "_started")

    def __init__(self, instance: Instance, record: AttemptRecord, clock: Callable[[], float], limit: float) -> None:
        self._instance = instance
        self._record = record
        self._clock = clock
        self._limit = limit
        self._started = 0.0
        self._in_flight = 0

    def __enter__(self) -> Self:
        self._instance.unsettled = True
        self._in_flight = self._instance.admission.in_flight
        self._started = self._clock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        instance, record, now = self._instance, self._record, self._clock()
        instance.unsettled = True
        late = isinstance(error, BackendTimeout)
        if error is None:
            record.outcome = Outcome.SUCCESS
            instance.latency.record(now, record.payload_bytes, record.network_s, record.queue_s + record.compute_s)
        elif isinstance(error, RouterError):
            record.error = error.code
            record.outcome = error.outcome
            if late:
                self._timed_out(now)
        else:
            record.error = CANCELLED
            self._cancelled(now)
        if error is None or late:
            instance.admission.limit.sampled(now, now - self._started, self._in_flight)
        instance.admission.leave(now)
        instance.breaker.attempt_ended(record.outcome, now, error)
        if not instance.breaker.admits:
            instance.alarm.set()
        if late:
            instance.let_go()

    def answered_late(self, seconds: float) -> None:
        """Learns that the call ended after so many seconds, when nobody waited for it any more."""
        self._instance.latency.record_late(self._clock(), self._record.payload_bytes, seconds)
        self._instance.unsettled = True

    def _timed_out(self, now: float) -> None:
        prediction, record = self._instance.latency.prediction, self._record
        if prediction is not None and not prediction.suffices(self._limit - self._started, record.payload_bytes):
            record.outcome = Outcome.IGNORE
            return
        self._took_at_least(now)

    def _cancelled(self, now: float) -> None:
        prediction = self._instance.latency.prediction
        if prediction is not None and now - self._started > prediction.p95(self._record.payload_bytes):
            self._took_at_least(now)

    def _took_at_least(self, now: float) -> None:
        record, elapsed = self._record, now - self._started
        on_the_way, at_work = (0.0, elapsed) if record.site == ON_PREMISES else (elapsed, 0.0)
        self._instance.latency.record_at_least(now, record.payload_bytes, on_the_way, at_work)


async def open_instance(backend: Backend, model: ModelSpec, variant: VariantOptions, now: float) -> Instance:
    """Opens a model on a backend. One that cannot be opened is tried again with every probe: its file may arrive."""
    return Instance(backend, model, variant, await _open(backend, model, variant), now)


async def _open(backend: Backend, model: ModelSpec, variant: VariantOptions) -> Servable | BackendError:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            return await backend.open(model, variant)
    except BackendError as error:
        return error
    except TimeoutError:
        return BackendUnavailable(f"{variant.label} could not be opened within {OPEN_TIMEOUT_S:g} s.")
    except Exception as error:  # a vendor's library may raise anything; the gateway starts all the same
        log.exception("opening %s raised what its contract does not allow", variant.label)
        return BackendUnavailable(f"{variant.label} could not be opened: {error}")
