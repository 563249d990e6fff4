"""The command `hybrid-router drill`."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from drills import DEFAULT_FILE
from drills.expectations import EXPECTATIONS, Expectation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drills.conduct import Outcome, Theatre
    from drills.progress import Progress
    from drills.slo import DrillFile

EXTRAS = {"aiohttp": "aiohttp", "dns": "dnspython", "matplotlib": "matplotlib"}
LONGEST_WATCH_S = 600.0
STATUS = {"PASS": 0, "FAIL": 1, "NO VERDICT": 2}


class CannotRun(click.ClickException):
    """The drill could not be run; says nothing about the gateway."""

    exit_code = 2


def make_drill(theatre: Callable[[], Theatre]) -> click.Command:
    """The command, on a theatre of its own. It is made when needed: what it takes may not be installed."""

    @click.command()
    @click.argument("scenarios", nargs=-1, metavar="[SCENARIO]...")
    @click.option("--list", "lists", is_flag=True, help="Say what each scenario does, and stop.")
    @click.option("--relay", is_flag=True, help="No root: a relay on loopback instead of network namespaces.")
    @click.option(
        "--file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=DEFAULT_FILE,
        help="Drill file: rates, durations, scenarios and the SLO.  [default: the one that comes with it]",
    )
    @click.option(
        "--report",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("drill-report"),
        show_default=True,
        help="Folder for report.html and the pictures.",
    )
    @click.option("--seconds", type=click.FloatRange(1), help="Length of every fault; with --against, of the watch.")
    @click.option(
        "--json",
        "json_file",
        type=click.Path(dir_okay=False, allow_dash=True),
        help="Write the outcome as JSON; - is stdout.",
    )
    @click.option("--against", metavar="URL", help="Watch this live gateway while you pull the cable.")
    @click.option("--model", default="digits", show_default=True, help="With --against: the model to ask.")
    @click.option("--inputs", type=click.File("rb"), help='With --against: its inputs, as {"NAME": nested list}.')
    @click.option("--api-key", envvar="HYBRID_ROUTER_API_KEY", help="With --against: the gateway's key.")
    def drill(
        scenarios: tuple[str, ...],
        lists: bool,
        relay: bool,
        file: Path,
        report: Path,
        seconds: float | None,
        json_file: str | None,
        against: str | None,
        model: str,
        inputs: BinaryIO | None,
        api_key: str | None,
    ) -> None:
        """Fail on purpose, and see whether anybody notices.

        Starts a gateway and a real Triton in network namespaces of its own, sends them requests at a constant rate,
        makes something fail, and holds what users saw against an SLO: failed and late requests, how long until the
        fault was noticed and until the cloud was used again, latency, cost, and whether data left that may not.
        Without SCENARIO it runs all that the drill file names. Nothing outside is touched, and nothing is left behind.

        \b
          sudo hybrid-router drill wan-cut               pull the cable for ten seconds
          hybrid-router drill --relay cloud-hang         the same idea without root
          hybrid-router drill --against http://pi:8080   watch a live gateway while you pull the real cable

        Exits with 0 if all is well, with 1 if the SLO was missed, with 2 if the drill could not be run or nothing can
        be said.
        """
        _need_extras()
        stage = theatre()
        if lists:
            return _list(stage)
        plan = _plan(file, stage, scenarios, seconds)
        with _ends_in_order():
            if against is not None:
                content = None if inputs is None else inputs.read()
                outcome, expectations = _watch(plan, against, model, content, api_key, seconds)
            else:
                outcome, expectations = _run(plan, stage, scenarios or tuple(plan.scenarios), relay), EXPECTATIONS
        sys.exit(_tell(outcome, expectations, plan, _mode(relay, against), report, json_file))

    return drill


def _need_extras() -> None:
    missing = [package for module, package in EXTRAS.items() if find_spec(module) is None]
    if missing:
        raise CannotRun(f"Drills need {', '.join(missing)} too: pip install 'hybrid-router[drills]'.")


def _list(stage: Theatre) -> None:
    width = max(map(len, stage.scenarios))
    for name, scenario in stage.scenarios.items():
        root = "" if not scenario.needs_root else " Needs root."
        click.echo(f"{name.ljust(width)}  {scenario.sentence}{root}")


def _plan(file: Path, stage: Theatre, scenarios: Sequence[str], seconds: float | None) -> DrillFile:
    from drills.slo import DrillFileError, load_drill_file

    for name in scenarios:
        if name not in stage.scenarios:
            raise CannotRun(f"There is no scenario {name}. There are {', '.join(stage.scenarios)}.")
    try:
        plan = load_drill_file(file.read_text(encoding="utf-8"), frozenset(stage.scenarios))
    except (DrillFileError, UnicodeDecodeError) as error:
        raise CannotRun(f"{file} cannot be used:\n{error}") from None
    if seconds is None:
        return plan
    options = {name: replace(given, during_s=None) for name, given in plan.scenarios.items()}
    return replace(plan, scenarios=options, durations=replace(plan.durations, during_s=seconds))


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Has SIGTERM end a drill as Ctrl-C does: everything that it made is removed first."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise CannotRun("Interrupted. Everything that the drill made is gone again.") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(plan: DrillFile, stage: Theatre, names: Sequence[str], relay: bool) -> Outcome:
    import asyncio

    from drills.conduct import Broken, conduct

    progress = _progress()
    progress.say("Starting Triton and the line to it ...")
    try:
        with stage.open(relay) as lab:
            return asyncio.run(conduct(stage, lab, plan, names, relay, progress))
    except Broken as error:
        raise CannotRun(str(error)) from None


def _watch(
    plan: DrillFile, url: str, model: str, inputs: bytes | None, api_key: str | None, seconds: float | None
) -> tuple[Outcome, Mapping[str, Expectation]]:
    import asyncio

    from drills.conduct import Outcome
    from drills.judgement import judge
    from drills.load import LoadFailed
    from drills.watch import NAME, NotWatchable, find_subject, watch

    demand = plan.load
    try:
        subject = find_subject(url, model, inputs, api_key)
        record = asyncio.run(
            watch(
                subject,
                demand.requests_per_second,
                demand.deadline_ms / 1000,
                seconds or LONGEST_WATCH_S,
                plan.durations.after_s,
                _progress(),
            )
        )
    except (NotWatchable, LoadFailed) as error:
        raise CannotRun(str(error)) from None
    return Outcome([judge(record, subject.expectation, plan.slo)], {}, {}), {NAME: subject.expectation}


def _progress() -> Progress:
    from drills.progress import Progress

    return Progress(sys.stderr, time.monotonic)


def _mode(relay: bool, against: str | None) -> str:
    if against is not None:
        return f"the live gateway at {against}"
    return "a relay on loopback" if relay else "network namespaces, packets counted on the line"


def _tell(
    outcome: Outcome,
    expectations: Mapping[str, Expectation],
    plan: DrillFile,
    mode: str,
    report: Path,
    json_file: str | None,
) -> int:
    """Prints and writes what came of it. Returns the exit status."""
    from drills.machine import describe_machine
    from drills.report import write_report
    from drills.summary import Drill, as_json, table

    drill = Drill(
        command=shlex.join(["hybrid-router", *sys.argv[1:]]),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine() | {"line": mode},
        slo=plan.slo,
        verdicts=outcome.verdicts,
        not_run=outcome.not_run,
        broken=outcome.broken,
    )
    to_stdout = json_file == "-"
    click.echo(table(drill), err=to_stdout)
    try:
        page = write_report(drill, expectations, report)
        if json_file is not None:
            with click.open_file(json_file, "wb") as file:
                file.write(as_json(drill) + b"\n")
    except OSError as error:
        raise CannotRun(f"{error.filename} cannot be written: {error.strerror}.") from None
    click.echo(f"{drill.word}; the report is {page}", err=to_stdout)
    return STATUS[drill.word]


def _theatre() -> Theatre:
    from drills.conduct import THEATRE

    return THEATRE


drill = make_drill(_theatre)
