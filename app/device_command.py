"""The command `hybrid-router device check`: what whoever has a HAT runs before trusting it, ten minutes at most."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from app.device_check import Step

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
WORDS = {"pass": "PASS", "fail": "FAIL", "skip": "skipped", "absent": "ABSENT"}


@click.group()
def device() -> None:
    """See what the device at hand can do."""


@device.command()
@click.option("--hef", type=FILE, help="A compiled model; without one, half of the steps are skipped.")
@click.option("--golden", type=FILE, help="An .npz with its inputs (in.STREAM) and right answers (out.STREAM).")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="How far an answer may be off, as a share of the golden output's range.",
)
@click.option(
    "--seconds", type=click.FloatRange(0, 3600), default=60.0, show_default=True, help="Length of the run at full load."
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON; progress goes to standard error.")
def check(hef: Path | None, golden: Path | None, tolerance: float, seconds: float, as_json: bool) -> None:
    """Check the AI HAT+ of this machine, step by step. Stop the gateway first: a HAT has one owner.

    Exits with 0 if nothing failed, 1 if something did, 2 if there is no HAT.

    \b
      hybrid-router device check
      hybrid-router device check --hef model.hef --golden model-golden.npz
    """
    import asyncio

    from app.device_bench import Request
    from app.device_check import STEPS
    from app.device_check import check as run

    width = max(map(len, STEPS))

    def begun(name: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"  ...      {name}", nl=False, err=True)

    def said(step: Step) -> None:
        if sys.stderr.isatty():
            click.echo("\r", nl=False, err=True)
        click.echo(f"  {WORDS[step.result]:7}  {step.name:{width}}  {step.detail}", err=as_json)

    steps = asyncio.run(run(Request(hef, golden, tolerance, seconds), said, begun))
    failed = [step for step in steps if step.result == "fail"]
    absent = [step for step in steps if step.result == "absent"]
    verdict = "NO HAT" if absent else "FAIL" if failed else "PASS"
    if as_json:
        import orjson

        document = {"verdict": verdict, "steps": [asdict(step) for step in steps]}
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        skipped = sum(1 for step in steps if step.result == "skip")
        click.echo(
            f"{verdict}: {absent[0].detail}"
            if absent
            else f"{verdict}: {len(failed)} of {len(steps)} steps failed, {skipped} were skipped"
        )
    sys.exit(2 if absent else 1 if failed else 0)
