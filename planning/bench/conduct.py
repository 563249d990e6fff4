"""Carries a plan out: measurement by measurement, each written down before the next begins."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from drills.load import Load, LoadFailed, LoadSpec, Stream
from drills.machine import describe_machine
from drills.record import Sample
from planning.bench.energy import Energy, EnergyMeter, Look, follow_board, joules_of
from planning.bench.plan import Cell, Plan, arrival_seed, cells, runs
from planning.bench.progress import Progress
from planning.bench.results import CellResults, Results, Round, added, counted, quantile
from planning.bench.stage import Stage, StageFailed
from planning.plain import as_plain
from planning.prices import Prices

LEAD_S = 1.0
"""The first request is due so long after the sender's process is started."""


def digest_of(plan: Plan, stage: Stage, prices: Prices) -> str:
    """Of all that a measurement depends on but the machine; where files lie does not matter, what they hold does."""
    bare = replace(plan, model=replace(plan.model, file="", payload=""), prices="")
    content = (as_plain(bare), stage.model.digest, as_plain(prices))
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def begin(plan: Plan, stage: Stage, prices: Prices) -> Results:
    """The results of a benchmark that has measured nothing yet."""
    return Results(
        began=_now(),
        ended=None,
        plan=as_plain(plan),
        plan_sha256=digest_of(plan, stage, prices),
        machine=describe_machine(),
        model=stage.model.facts,
        prices={"dated": prices.dated.isoformat(), "currency": prices.currency},
        cells=(),
    )


def left_of(plan: Plan, results: Results) -> list[tuple[int, Cell]]:
    """What is still to be measured."""
    return [(number, cell) for number, cell in runs(plan) if (number, cell.key) not in results.finished]


def conduct(
    plan: Plan,
    stage: Stage,
    results: Results,
    progress: Progress,
    keep: Callable[[Results], None],
    headers: Mapping[str, str],
) -> Results:
    """Measures what is still to be measured.

    Args:
        plan: The plan.
        stage: Its processes.
        results: What there is already.
        progress: Told how it gets on.
        keep: Called with the results after each measurement.
        headers: For live gateways, such as Authorization.

    Raises:
        StageFailed: A process did not work.
    """
    order = [cell.key for cell in cells(plan)]
    for number, cell in left_of(plan, results):
        progress.cell()
        fresh = _measure(plan, stage, cell, number, progress, headers)
        network, scenario = cell.network, cell.scenario
        section = CellResults(cell.subject.name, network, scenario.name, scenario.per_second, (fresh,))
        results = replace(results, cells=added(results.cells, section, order))
        keep(results)
        progress.done()
    results = replace(results, ended=results.ended or _now())
    keep(results)
    return results


def _measure(
    plan: Plan, stage: Stage, cell: Cell, number: int, progress: Progress, headers: Mapping[str, str]
) -> Round:
    began, load, seed = _now(), os.getloadavg()[0], arrival_seed(plan, cell, number)
    scenario = cell.scenario
    with stage.gateway(cell) as url:
        stream = Stream(
            scenario.name,
            scenario.per_second,
            stage.model.body,
            plan.deadline_ms / 1000,
            burst=scenario.burst,
            seed=seed if scenario.arrivals == "random" else None,
        )
        zero = time.monotonic()
        spec = LoadSpec(
            url,
            (stream,),
            plan.warm_up_s + scenario.seconds,
            zero,
            LEAD_S,
            headers if cell.subject.gateway else {},
            looks_per_second=0,
        )
        lines = stage.folder / "load.jsonl"
        lines.unlink(missing_ok=True)
        try:
            meter = None if cell.subject.gateway else EnergyMeter()
            samples, energy = asyncio.run(_load(spec, LEAD_S + plan.warm_up_s, lines, progress, meter))
        except LoadFailed as error:
            raise StageFailed(f"{cell.key}: the sender failed: {error}") from None
    warm = [sample for sample in samples if sample.due >= LEAD_S + plan.warm_up_s]
    return round_of(number, seed, began, load, warm, energy)


async def _load(
    spec: LoadSpec, counts_from: float, lines: Path, progress: Progress, meter: EnergyMeter | None
) -> tuple[Sequence[Sample], Energy | None]:
    """Every request, and the energy since `counts_from` seconds after the load's zero.

    The meter is of this machine: None where another one answers.
    """
    looks: list[Look] = []
    async with Load(spec, lines, ["setpriv", "--pdeathsig", "KILL"], progress.saw) as load:
        await asyncio.sleep(max(0.0, spec.zero + counts_from - time.monotonic()))
        counted = meter is not None and meter.joules() is not None
        looking = None if counted else asyncio.create_task(follow_board(spec.url, spec.headers, time.monotonic, looks))
        await load.wait()
        ended, joules = time.monotonic(), meter.joules() if meter is not None else None
        if looking is not None:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
            joules = joules_of([look for look in looks if look.at <= ended], ended)
    return load.samples, None if joules is None else Energy(joules, estimated=not counted)


def round_of(
    number: int, seed: int, began: str, load: float, samples: Sequence[Sample], energy: Energy | None
) -> Round:
    """A round's results.

    Args:
        number: Which round.
        seed: Of its arrivals.
        began: When.
        load: How busy the machine was.
        samples: Its requests without the warm-up's, in the order in which they were due.
        energy: What it took, or None.
    """
    answers = [sample for sample in samples if sample.answered]
    queue_us, network_us, compute_us = (
        tuple(round(sample.phases_ms[phase] * 1000) for sample in answers) for phase in range(3)
    )
    late = sorted(_microseconds(sample.sent - sample.due) for sample in samples)
    return Round(
        round=number,
        seed=seed,
        began=began,
        load=load,
        sent=len(samples),
        errors=counted(sample.error or "no-answer" for sample in samples if not sample.answered),
        backends=counted(sample.backend for sample in answers),
        degraded=sum(sample.degraded for sample in answers),
        latency_us=tuple(_microseconds(sample.latency) for sample in answers),
        compute_us=compute_us,
        network_us=network_us,
        queue_us=queue_us,
        cost_usd=sum(sample.cost_usd for sample in answers),
        bytes_out=sum(sample.bytes_out for sample in answers),
        energy_j=None if energy is None else energy.joules,
        late_p99_us=quantile(late, 0.99) if late else 0,
        energy_estimated=energy is not None and energy.estimated,
    )


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
