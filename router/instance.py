"""A model opened on a backend, with its health: what outlives a change of the policy file when it did not change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from router.breaker import Breaker
from router.deployment import BackendEntry
from router.errors import BackendError, BackendTimeout, BackendUnavailable, Outcome, RouterError
from router.latency import LatencyEstimator
from router.ports import Backend, Servable, VariantOptions, synthetic_call
from router.snapshot import TargetView
from router.types import ON_PREMISES, AttemptRecord, ModelSpec

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 120.0
"""A large model on a slow card takes long to load; this only ends what will never end."""

PROBE_TIMEOUT_S = 0.5
"""A backend that does not say within this time that it is ready is as good as gone."""

CONNECT_TIMEOUT_S = 1.0
"""The same where there may be no connection yet, which takes several round trips."""

SYNTHETIC_TIMEOUT_S = 5.0
"""A made-up inference may take as long as a large model needs."""

PROBE_SLACK_S = 0.1
"""The backend's own deadline comes first, so that it learns of its failure rather than being cancelled."""


class Instance:
    """One model on one backend: how to ask it, and how it has been doing.

    Args:
        backend: The backend it is opened on.
        model: The model's spec.
        variant: The variant's options.
        servable: The opened model, or the error that opening it ended in.
        now: Monotonic seconds.
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
        self.servable = servable
        self.breaker = Breaker(now)
        self.latency = LatencyEstimator()
        self.in_flight = 0
        self.unsettled = True

    def serves(self, backend: Backend, model: ModelSpec, variant: VariantOptions) -> bool:
        """Whether it is what a policy file asks for, so that it can be kept, connection, health and all."""
        return self.backend is backend and self.model == model and self.variant == variant

    def settle(self, now: float) -> None:
        """Brings the prediction up to date, so that a view of it is true until it is `unsettled` again."""
        self.latency.refresh(now)
        self.unsettled = False

    def permit(self, record: AttemptRecord, clock: Callable[[], float], limit: float) -> Permit:
        """Leave to make one call, which ends by `limit`; the call is made inside the permit's `with` block."""
        return Permit(self, record, clock, limit)

    async def probe(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """Probes it once and tells the breaker.

        It asks for readiness, and then for a synthetic inference where the breaker wants one, or where nobody was
        answered for so long that the prediction would come to rest on nothing.
        """
        seconds = PROBE_TIMEOUT_S if self.breaker.admits else CONNECT_TIMEOUT_S
        synthetic = self.breaker.begin_probe() or not self.latency.fresh(clock())
        self.unsettled = True
        reply = None
        try:
            if isinstance(self.servable, BackendError):
                self.servable = await _open(self.backend, self.model, self.variant)
            if isinstance(self.servable, BackendError):
                raise self.servable
            async with asyncio.timeout(seconds + PROBE_SLACK_S):
                await self.servable.probe(clock() + seconds, synthetic=False)
            if synthetic:
                seconds = SYNTHETIC_TIMEOUT_S
                async with asyncio.timeout(seconds + PROBE_SLACK_S):
                    reply = await self.servable.probe(clock() + seconds, synthetic=True)
        except TimeoutError:
            self.breaker.probe_failed(clock(), random(), f"did not answer a probe within {seconds:g} s")
        except BackendError as error:
            self.breaker.probe_failed(clock(), random(), error.detail)
        except Exception as error:
            log.exception("probing %s raised what its contract does not allow", self.variant.label)
            self.breaker.probe_failed(clock(), random(), f"probing it failed: {error}")
        else:
            self.breaker.probe_succeeded(clock())
            if reply is not None:
                size = synthetic_call(self.model).payload_bytes
                self.latency.record(clock(), size, reply.network_s, reply.queue_s + reply.compute_s)
        finally:
            self.unsettled = True

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

    Invariants: the call is counted as in flight for exactly as long as the block lasts; breaker and estimator are
    told exactly once. A cancelled call, and one that timed out because its caller gave it less time than the
    backend usually needs, say nothing about the backend.
    """

    __slots__ = ("_clock", "_instance", "_limit", "_record", "_started")

    def __init__(self, instance: Instance, record: AttemptRecord, clock: Callable[[], float], limit: float) -> None:
        self._instance = instance
        self._record = record
        self._clock = clock
        self._limit = limit
        self._started = 0.0

    def __enter__(self) -> None:
        self._instance.in_flight += 1
        self._instance.unsettled = True
        self._started = self._clock()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        instance, record, now = self._instance, self._record, self._clock()
        instance.in_flight -= 1
        instance.unsettled = True
        if error is None:
            record.outcome = Outcome.SUCCESS
            instance.latency.record(now, record.payload_bytes, record.network_s, record.queue_s + record.compute_s)
        elif isinstance(error, RouterError):
            record.error = error.code
            record.outcome = error.outcome
            if isinstance(error, BackendTimeout):
                self._timed_out(now)
        else:
            record.error = "cancelled"
        instance.breaker.attempt_ended(record.outcome, now, str(error))

    def _timed_out(self, now: float) -> None:
        prediction, record, elapsed = self._instance.latency.prediction, self._record, now - self._started
        if prediction is not None and not prediction.suffices(self._limit - self._started, record.payload_bytes):
            record.outcome = Outcome.IGNORE
            return
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


@dataclass(frozen=True, slots=True)
class Target:
    """An instance as one generation of the policy file sees it: under a backend's name, at a site and a price."""

    backend: str
    entry: BackendEntry
    instance: Instance

    def charge(self, record: AttemptRecord, payload_bytes: int, inferences: int) -> None:
        """Puts on record what a call costs from the moment it is sent, whatever becomes of it."""
        price = self.entry.price
        record.site = self.entry.site
        record.payload_bytes = payload_bytes
        record.bytes_out = 0 if self.entry.site == ON_PREMISES else payload_bytes
        record.cost_usd = inferences * price.usd_per_inference + record.bytes_out * price.usd_per_byte_out

    def view(self) -> TargetView:
        """What a policy sees of it now."""
        instance = self.instance
        return TargetView(
            backend=self.backend,
            model=instance.model.name,
            variant=instance.variant.label,
            site=self.entry.site,
            takes_image=instance.variant.takes_image,
            breaker=instance.breaker.state,
            problem=instance.breaker.reason,
            retry_at=instance.breaker.next_probe_at,
            latency=instance.latency.prediction,
            in_flight=instance.in_flight,
            usd_per_inference=self.entry.price.usd_per_inference,
            usd_per_byte_out=self.entry.price.usd_per_byte_out,
        )
