"""The commands `hybrid-router bench run` and `bench compare`. What they need is imported when they run."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from planning.bench.plan import Plan
    from planning.bench.results import Results
    from planning.prices import Prices

RESULT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def bench() -> None:
    """Measure latency, throughput, errors and cost on your own model, and compare two measurements.

    \b
      hybrid-router bench run quick     # about a minute and a half, with a model made on the spot
      hybrid-router bench run my-plan.yaml --out a.json
      hybrid-router bench compare a.json b.json
    """


@bench.command()
@click.argument("plan", metavar="PLAN.yaml|quick|full")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Result file.  [default: bench-NAME.json, by the plan's name]",
)
@click.option("--resume", is_flag=True, help="Go on with the result file: what is in it is not measured again.")
@click.option("--list", "lists", is_flag=True, help="Say what would be measured and how long it takes, and stop.")
@click.option("--api-key", envvar="HYBRID_ROUTER_API_KEY", help="The key of gateways that the plan names by URL.")
def run(plan: str, out: Path | None, resume: bool, lists: bool, api_key: str | None) -> None:
    """Measure what a plan says, and write one result file.

    Each subject of the plan (the device alone, the cloud alone, a policy) is a real gateway of its own, asked by an
    open-loop load; the cloud is a real Triton on this machine, or one that the plan names, at the other end of a
    relay that delays and throttles. Latency counts from when a request was due. Nothing but this machine is asked
    unless a URL in the plan says so. Every measurement is on the disk before the next begins.
    """
    with _in_sentences():
        file, read = _read_plan(plan)
        out = out or Path(f"bench-{'-'.join(read.name.split())}.json".replace("/", "-"))
        if lists:
            return _list(read)
        _need_extras(read)
        with _ends_in_order(out):
            results = _run(read, file, out, resume, api_key)
    from planning.bench.wording import results_text

    click.echo(results_text(results), nl=False)
    click.echo(f"The result file is {out}.")


@bench.command()
@click.argument("a", type=RESULT_FILE)
@click.argument("b", type=RESULT_FILE)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def compare(a: Path, b: Path, seed: int, as_json: bool) -> None:
    """Say in which cells B is slower or faster than A, and where there is no difference.

    Each quantile's difference comes with an interval; where it includes zero, there is no difference. Results of
    different plans, models or payloads are not compared.
    """
    import orjson

    from planning.bench.comparison import Incomparable
    from planning.bench.comparison import compare as compared
    from planning.bench.results import load_results
    from planning.bench.wording import comparison_text
    from planning.plain import as_plain

    with _in_sentences():
        try:
            before, after = (load_results(file.read_bytes(), str(file)) for file in (a, b))
            comparison = compared(before, after, seed)
        except Incomparable as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(orjson.dumps(as_plain(comparison), option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo(comparison_text(comparison), nl=False)


def _read_plan(given: str) -> tuple[Path, Plan]:
    from planning.bench.plan_file import PLANS, load_plan

    shipped = PLANS / f"{given}.yaml"
    file = shipped if shipped.parent == PLANS and shipped.is_file() and not Path(given).exists() else Path(given)
    return file, load_plan(file.read_bytes(), str(file), file.parent)


def _list(plan: Plan) -> None:
    from planning.bench.plan import cells, runs
    from planning.bench.progress import duration, duration_of

    for cell in cells(plan):
        click.echo(f"{cell.key}: {cell.scenario.per_second:g}/s for {cell.scenario.seconds:g} s")
    everything = [cell for _, cell in runs(plan)]
    click.echo(f"{len(everything)} measurements, about {duration(duration_of(plan, everything))}.")


def _run(plan: Plan, file: Path, out: Path, resume: bool, api_key: str | None) -> Results:
    from planning.bench.comparison import machines_differ
    from planning.bench.conduct import begin, conduct, digest_of, left_of
    from planning.bench.progress import Progress
    from planning.bench.result_file import recover, save
    from planning.bench.stage import Stage

    prices = _prices(plan)
    before = recover(out) if resume else None
    if out.exists() and not resume:
        raise click.ClickException(f"{out} exists. Go on with it by --resume, or name another with --out.")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def say(sentence: str) -> None:
        click.echo(sentence, err=True)

    with Stage(plan, prices, say) as stage:
        if before is not None and before.plan_sha256 != digest_of(plan, stage, prices):
            raise click.ClickException(
                f"{out} is of another plan, model, payload or price file than {file} now; name another with --out."
            )
        results = begin(plan, stage, prices)
        if before is not None:
            if machines_differ(before.machine, results.machine):
                raise click.ClickException(
                    f"{out} is of another machine, or of other versions; name another with --out."
                )
            results = before
        left = [cell for _, cell in left_of(plan, results)]
        progress = Progress(sys.stderr, time.monotonic, plan, left)
        return conduct(plan, stage, results, progress, lambda fresh: save(fresh, out), headers)


def _prices(plan: Plan) -> Prices:
    from planning.price_file import default_prices, load_prices

    return load_prices(Path(plan.prices).read_bytes(), plan.prices) if plan.prices else default_prices()


def _need_extras(plan: Plan) -> None:
    needed = ["aiohttp", *(["onnx"] if plan.model.made_mb else [])]
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise click.ClickException(f"Benchmarks need {', '.join(missing)} too: pip install 'hybrid-router[bench]'.")


@contextmanager
def _ends_in_order(out: Path) -> Iterator[None]:
    """Has SIGTERM end a benchmark as Ctrl-C does: its processes are ended first."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        kept = f"What was measured is in {out}; --resume goes on." if out.exists() else "Nothing was measured yet."
        raise click.ClickException(f"Interrupted. {kept}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _in_sentences() -> Iterator[None]:
    """Says in a sentence why something cannot be done."""
    from planning.bench.results import UnusableResults
    from planning.sections import UnusableFile

    try:
        yield
    except (UnusableFile, UnusableResults) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be used: {error.strerror}.") from None
    except _stage_errors() as error:
        raise click.ClickException(str(error)) from None


def _stage_errors() -> tuple[type[Exception], ...]:
    from drills.child import ChildFailed
    from planning.bench.served import NotServable
    from planning.bench.stage import StageFailed
    from planning.bench.subject_model import UnusableModel

    return (StageFailed, NotServable, UnusableModel, ChildFailed)
