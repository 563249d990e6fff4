"""The engine: the only thing that acts. Plans with the policy in force, guards, executes, accounts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date

from router.deployment import BackendEntry, Deployment, ModelEntry, Shares
from router.device import DeviceHealth
from router.dispatch import Dispatch
from router.errors import (
    InternalError,
    InvalidField,
    Outcome,
    RouterError,
)
from router.execution import Execution
from router.extras import Extras
from router.generation import Generation, World, open_generation
from router.inline import Begun, is_final, try_inline
from router.ledger import Ledger
from router.model import Tensor
from router.plan import Attempt
from router.planner import Planner, Prepared
from router.ports import Backend, Observer, Preprocess, Runtime
from router.probing import Probing
from router.purse import Purse, Purses
from router.snapshot import Snapshot
from router.types import (
    UNCLASSIFIED,
    AttemptRecord,
    InferenceRequest,
    InferenceResponse,
    Reply,
    Route,
)

log = logging.getLogger(__name__)

SNAPSHOT_INTERVAL_S = 0.1
"""How old the numbers that a policy sees may be; state flips are seen at once."""


class DeploymentRefused(Exception):
    """A policy file that reads well but cannot be put in force; what was in force before still is."""


class Engine:
    """Routes requests by the deployment in force.

    Use `async with engine.running():` around everything else. `adopt` is called by one task at a time.

    Args:
        make_backend: Makes a backend from its entry; does no I/O.
        preprocess: Runs image stages.
        observer: Learns what happened.
        clock: Gives monotonic seconds.
        random: Gives numbers in [0, 1).
        today: Gives the date, UTC, which budgets are counted by.
        ledger: Keeps what was spent of them.
    """

    def __init__(
        self,
        *,
        make_backend: Callable[[BackendEntry], Backend],
        preprocess: Preprocess,
        observer: Observer,
        clock: Callable[[], float],
        random: Callable[[], float],
        today: Callable[[], date],
        ledger: Ledger,
    ) -> None:
        self._make_backend = make_backend
        self._preprocess = preprocess
        self._observer = observer
        self._clock = clock
        self._probing = Probing(clock, random, self.refresh)
        self._purses = Purses(ledger, today)
        self._extras = Extras(Shares())
        self._planner = Planner()
        self._tasks: asyncio.TaskGroup | None = None
        self._retiring: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps snapshot and probes going; on the way out closes whatever is open."""
        async with asyncio.TaskGroup() as self._tasks:
            ticking = self._tasks.create_task(self._tick(), name="snapshot")
            syncing = self._tasks.create_task(self._purses.ledger.keep_synced(), name="ledger")
            try:
                yield
            finally:
                ticking.cancel()
                await self._retire(self._planner.world.generation, Generation.empty(), self._retiring)
                syncing.cancel()
                self._purses.ledger.close()

    async def adopt(self, deployment: Deployment, *, must_open: bool) -> None:
        """Puts a deployment in force, between two requests.

        Backends and models that did not change keep their connections and their health; requests under way finish
        on the generation that they began with.

        Args:
            deployment: What is to be in force.
            must_open: Whether a model that cannot be opened refuses the whole deployment. At startup it does
                not: the gateway serves what it can.

        Raises:
            DeploymentRefused: With a sentence for each model that cannot be opened.
        """
        before = self._planner.world.generation
        generation = await open_generation(deployment, before, self._make_backend, self._clock, self._purses)
        fresh = generation.instances() - before.instances()
        problems = generation.problems(fresh)
        if must_open and problems:
            await generation.close_all_but(before)
            raise DeploymentRefused("; ".join(problems))
        assert self._tasks is not None, "adopt is called inside running()"
        first = await self._probing.first(self._tasks, fresh)
        self._extras = Extras(deployment.shares)
        self._planner.adopt(World.of(generation, self._clock()))
        self._probing.keep_on(self._tasks, first)
        self._retiring = self._tasks.create_task(self._retire(before, generation, self._retiring), name="retire")

    @property
    def snapshot(self) -> Snapshot:
        """What policies see at present."""
        return self._planner.world.snapshot

    @property
    def ledger_problems(self) -> Sequence[str]:
        """What is wrong with the books of what was spent, as sentences."""
        return self._purses.ledger.problems

    @property
    def purses(self) -> Mapping[str, Purse]:
        """The backends' budgets and what was spent of them, by name."""
        return self._planner.world.generation.purses

    @property
    def runtimes(self) -> Mapping[tuple[str, str], Runtime]:
        """What the models that run in this process run on, by model and backend."""
        return self._planner.world.generation.runtimes()

    @property
    def deployment(self) -> Deployment:
        """What is in force."""
        return self._planner.world.generation.deployment

    def model(self, name: str) -> ModelEntry:
        """The model of that name.

        Raises:
            UnknownModel: There is none; the error lists those that there are.
        """
        return self._planner.world.generation.deployment.model(name)

    def data_class(self, name: str | None) -> str:
        """The data class of that name; without a name, the one of unclassified data.

        Raises:
            InvalidField: It is not one that the policy file knows. A misspelt class must not lose its protection.
        """
        if name is None:
            return UNCLASSIFIED
        sites = self._planner.world.snapshot.sites
        if name not in sites:
            known = ", ".join(sites)
            raise InvalidField(
                f"data_class {name[:100]!r} is not known here; known are {known}. "
                "Data of a class that the policy file does not name is not let in.",
                field="data_class",
            )
        return name

    def prepare(self, request: InferenceRequest) -> Prepared:
        """The guarded plan for a request, as of the current snapshot; nothing is executed."""
        return self._planner.prepared_for(request)

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Answers a request.

        Args:
            request: Its model, data class and tensors were checked at the door.

        Raises:
            ResidencyForbids: No backend of the model may see data of this class.
            NoBackendAvailable: None of those that may is up, or all of them failed.
            DeadlineExceeded: None answered in time.
            RouterError: In its other kinds, as the attempts raised them.
        """
        return await self.go_on(self._begin(request))

    def infer_inline(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | RouterError | Begun]:
        """Answers those requests that can be answered without a wait: several of a kind take little longer than one.

        Args:
            requests: As for `infer`.

        Returns:
            For each, in the same order: its answer; or an error; or that it was begun, which is to `go_on`.
        """
        results: list[InferenceResponse | RouterError | Begun] = []
        for request in requests:
            try:
                begun = self._begin(request)
                results.append(begun if begun.prepared.steps else self._refused(begun))
            except RouterError as error:
                results.append(error)
            except Exception:
                log.exception("a request failed in a way that nobody foresaw")
                results.append(InternalError("An unexpected error; the gateway's log has the details."))
        try:
            try_inline([begun for begun in results if isinstance(begun, Begun)], self._clock)
        except Exception:  # whoever was not answered goes on as if it had not been tried
            log.exception("requests could not be answered together")
        for index, result in enumerate(results):
            if isinstance(result, Begun) and result.first is not None:
                begun, (record, reply) = result, result.first
                attempt = begun.steps[0][0]
                if isinstance(reply, Reply) and is_final(reply.outputs, begun.prepared.model.spec, attempt):
                    begun.end()
                    results[index] = self._respond(begun, [record], attempt, reply.outputs, attempt.degraded, "")
        return results

    def abandon(self, begun: Begun) -> None:
        """Learns that nobody waits for a request that was begun. Does nothing if it has ended."""
        if begun.end():
            attempts = [] if begun.first is None else [begun.first[0]]
            self._observer.hung_up(begun.request.model, begun.prepared.policy, attempts)
            if any(record.outcome is Outcome.DROPPED for record in attempts):
                self.refresh()

    def _refused(self, begun: Begun) -> RouterError:
        """The refusal of a request that nobody may be asked about, by the world that it was planned in."""
        begun.end()
        error = self._planner.refusal(begun.prepared, begun.request.data_class, self._clock())
        self._observer.failed(begun.request.model, begun.prepared.policy, error, [])
        return error

    async def go_on(self, begun: Begun) -> InferenceResponse:
        """Answers a request that was begun. Raises as `infer` does."""
        request, prepared = begun.request, begun.prepared
        dispatch = Dispatch(request, prepared.model.spec, begun.deadline, self._clock, self._preprocess)
        execution = Execution(dispatch, self._extras)
        try:
            if not prepared.steps:
                raise self._planner.refusal(prepared, request.data_class, self._clock())
            answer = await execution.run(begun.steps, begun.first)
        except RouterError as error:
            self._observer.failed(request.model, prepared.policy, error, execution.attempts)
            raise
        except Exception as error:
            log.exception("a request failed in a way that nobody foresaw")
            defect = InternalError("An unexpected error; the gateway's log has the details.")
            self._observer.failed(request.model, prepared.policy, defect, execution.attempts)
            raise defect from error
        except asyncio.CancelledError:
            self._observer.hung_up(request.model, prepared.policy, execution.attempts)
            raise
        finally:
            begun.end()
            for record in execution.attempts:
                if record.outcome is Outcome.DROPPED:
                    self.refresh()
                    break
        return self._respond(begun, execution.attempts, answer.attempt, answer.outputs, answer.degraded, answer.reason)

    def sense(self, health: DeviceHealth) -> None:
        """Learns how the device is; to be told every second or so."""
        self._planner.sense(health, self._clock())

    def refresh(self) -> None:
        """Brings the snapshot up to date; plans made against the old one are forgotten."""
        self._planner.refresh(self._clock())

    def _begin(self, request: InferenceRequest) -> Begun:
        """Plans a request."""
        started = self._clock()
        leases = self._planner.world.generation.leases
        prepared = self._planner.prepared_for(request)
        self._observer.planned(self._clock() - started)
        for backend in prepared.blocked:
            self._observer.residency_blocked(backend, request.data_class)
        deadline = request.arrived + prepared.model.deadline_s if request.deadline is None else request.deadline
        self._extras.requests += 1
        explores = prepared.steps and prepared.explore and self._extras.may_explore()
        return Begun(request, prepared, prepared.explore if explores else prepared.steps, deadline, leases)

    def _respond(
        self,
        begun: Begun,
        attempts: list[AttemptRecord],
        attempt: Attempt,
        outputs: dict[str, Tensor],
        degraded: bool,
        reason: str,
    ) -> InferenceResponse:
        request, prepared = begun.request, begun.prepared
        route = Route(
            prepared.policy,
            attempt.backend,
            attempt.variant,
            degraded,
            prepared.plan.reason + reason,
            attempts,
            self._clock() - request.arrived,
        )
        response = InferenceResponse(request.id, prepared.model.spec, outputs, route)
        self._observer.answered(response)
        return response

    async def _tick(self) -> None:
        while True:
            due = self._clock() + SNAPSHOT_INTERVAL_S
            await asyncio.sleep(SNAPSHOT_INTERVAL_S)
            self._planner.ran_late(self._clock() - due)
            self.refresh()

    async def _retire(self, generation: Generation, successor: Generation, earlier: asyncio.Task[None] | None) -> None:
        """Closes what the successor does not use, after the last request of this generation and all before it."""
        await self._probing.stop(generation.instances() - successor.instances())  # one may be opening what is to close
        if earlier is not None:
            await earlier
        await generation.leases.ended()
        await generation.close_all_but(successor)
