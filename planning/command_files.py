"""The files of `advise` and `tco`: which are refused before anything is asked, how they are read and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backends.whole_file import write_whole

if TYPE_CHECKING:
    from planning.advice import Advice
    from planning.prices import Prices
    from planning.report.latencies import Run

REPORT_SUFFIXES = (".html", ".pdf", ".png")


def check_report_options(reports: Sequence[Path], benches: Sequence[Path]) -> None:
    """Holds the options of reports against one another, before anything is measured.

    Raises:
        click.UsageError: They do not fit.
        click.ClickException: What draws reports is not installed.
    """
    for report in reports:
        if report.suffix.lower() not in REPORT_SUFFIXES:
            raise click.UsageError(f"--report {report} must end in {', '.join(REPORT_SUFFIXES)}.")
    if benches and not reports:
        raise click.UsageError("--bench is for a report: name its file with --report.")
    if reports and find_spec("matplotlib") is None:
        raise click.ClickException("A report needs matplotlib too: pip install 'hybrid-router[report]'.")


def check_policy_option(policy_out: Path | None, workload_file: Path | None, measured: Sequence[str]) -> None:
    """Refuses, before anything is asked, what would be asked in vain: no answer says which tensors a model takes.

    Raises:
        click.UsageError: A policy file is wanted, and no file is there that tells.
    """
    if policy_out is not None and workload_file is None and all("://" in subject for subject in measured):
        raise click.UsageError(
            "--policy-out needs the model's tensors, which no answer tells: measure the model with --measure "
            "FILE.onnx, or describe them in the `serving` section of a WORKLOAD.yaml."
        )


def read_runs(benches: Sequence[Path]) -> list[Run]:
    """The runs in results of benchmarks.

    Raises:
        click.ClickException: A file cannot be used.
    """
    if not benches:
        return []
    from planning.report.latencies import load_runs

    with readable():
        return [run for bench in benches for run in load_runs(bench.read_bytes(), str(bench))]


def drafted(advice: Advice, prices: Prices) -> tuple[str, str]:
    """The policy file's text, or why there is none; the other is empty."""
    from planning.policy_draft import NoPolicyFile, draft_policy

    try:
        return draft_policy(advice, prices), ""
    except NoPolicyFile as error:
        return "", str(error)


def write_reports(advice: Advice, policy: str, no_policy: str, files: Sequence[Path], runs: Sequence[Run]) -> None:
    """Writes the report as each kind of file.

    Args:
        advice: The decision.
        policy: The policy file that carries it out; empty where there is none.
        no_policy: Why there is none.
        files: Where to; the ending says which kind.
        runs: Of benchmarks, for the latencies.

    Raises:
        click.ClickException: A file cannot be written.
    """
    from planning.report.content import make_report
    from planning.report.files import rendered

    report = make_report(advice, policy, no_policy, runs)
    for file in files:
        write(file, rendered(report, file.suffix.lower()))


def write(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all.

    Raises:
        click.ClickException: It cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from None


@contextmanager
def readable() -> Iterator[None]:
    """Says in a sentence why a file cannot be used.

    Raises:
        click.ClickException: It cannot.
    """
    from planning.sections import UnusableFile

    try:
        yield
    except UnusableFile as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be read: {error.strerror}.") from None
