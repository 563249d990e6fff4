"""The commands `hybrid-router advise` and `hybrid-router tco`. What they need is imported when they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import orjson

from planning.command_files import (
    check_policy_option,
    check_report_options,
    drafted,
    read_runs,
    readable,
    write,
    write_reports,
)
from planning.options import sensible
from planning.ranges import Nonsense

if TYPE_CHECKING:
    from planning.prices import Prices
    from planning.total_cost import Billing
    from planning.workload import Workload

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of both commands."""
    for option in (
        click.option(
            "--json", "as_json", is_flag=True, help="Print everything as JSON, curves and quantiles included."
        ),
        click.option(
            "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the Monte Carlo draws."
        ),
        click.option(
            "--prices", "price_file", type=FILE, help="Price file.  [default: the dated one that comes with it]"
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("workload_file", metavar="[WORKLOAD.yaml]", type=FILE, required=False)
@click.option(
    "--policy-out", type=click.Path(dir_okay=False, path_type=Path), help="Write the policy file that carries it out."
)
@click.option(
    "--measure",
    "measured",
    multiple=True,
    metavar="FILE.onnx|URL",
    help="Measure instead of assuming: a model file on this device, or grpc://host:port/MODEL on a Triton.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html|.pdf|.png",
    help="Write a report for whoever decides: all of it as HTML or PDF, an overview as PNG.",
)
@click.option(
    "--bench",
    "benches",
    multiple=True,
    type=FILE,
    help="A result of `hybrid-router bench`, for the report's latencies.",
)
@shared_options
def advise(
    workload_file: Path | None,
    policy_out: Path | None,
    measured: tuple[str, ...],
    reports: tuple[Path, ...],
    benches: tuple[Path, ...],
    price_file: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Say whether a workload belongs on the edge, in the cloud or split, and what would change that.

    Scores seven criteria 0 to 3 for each choice; what may not be (residency), cannot be (the model does not fit) or
    must be (offline) decides alone. The result says by how many points, which single input would flip it and where,
    what a million inferences cost, and which figures were measured and which are only assumed. Without WORKLOAD.yaml
    it asks.

    \b
      hybrid-router advise planning/examples/cameras.yaml
      hybrid-router advise planning/examples/kiosk.yaml --policy-out kiosk-policy.yaml
      hybrid-router advise my.yaml --measure model.onnx --measure grpc://10.0.0.7:8001/detector
      hybrid-router advise my.yaml --report decision.html --report decision.pdf --bench result.json

    The policy file is what `hybrid-router serve --policy` takes. --measure takes a few seconds for each, with empty
    inputs; it replaces size, memory, latency and throughput, or round trip, compute and throughput of the cloud.
    """
    from planning.advice import advise as give_advice
    from planning.wording import advice_text

    check_report_options(reports, benches)
    check_policy_option(policy_out, workload_file, measured)
    runs = read_runs(benches)
    prices = _prices(price_file)
    workload = _asked() if workload_file is None else _workload(workload_file)
    try:
        advice = give_advice(_measured(workload, measured), prices, seed)
    except Nonsense as error:
        raise click.ClickException(str(error)) from None
    # Measuring and answering took their time: what can be said is said before what cannot be written ends it.
    _say(advice.as_json() if as_json else advice_text(advice))
    policy, no_policy = drafted(advice, prices) if policy_out is not None or reports else ("", "")
    if reports:
        write_reports(advice, policy, no_policy, reports, runs)
    for report in reports:
        click.echo(f"The report is {report}.", err=as_json)
    if policy_out is not None:
        if no_policy:
            raise click.ClickException(no_policy)
        write(policy_out, policy.encode())
        click.echo(f"The policy file is {policy_out}.", err=as_json)


@click.command()
@click.option("--rate", type=sensible("rate_per_second"), help="Inferences a second.  [default: 2.16 M a month]")
@click.option("--sites", type=sensible("sites"), default=1, show_default=True, help="Places that need a device each.")
@click.option(
    "--device-utilisation",
    type=sensible("device_utilisation"),
    default=1.0,
    show_default=True,
    help="Share of a device's throughput to plan with; 60% is 0.6.",
)
@click.option(
    "--node-utilisation",
    type=sensible("node_utilisation"),
    default=1.0,
    show_default=True,
    help="Share of a node's throughput to plan with.",
)
@click.option(
    "--bytes-out", type=sensible("bytes_out"), default=0.0, help="Bytes that an inference sends to the cloud."
)
@click.option("--device-rate", type=sensible("device_per_second"), help="Inferences a second that a device does.")
@click.option("--node-rate", type=sensible("node_per_second"), help="Inferences a second that a node does.")
@click.option(
    "--billing",
    type=click.Choice(["by-use", "always-on"]),
    default="by-use",
    show_default=True,
    help="Whether nodes are paid while they are busy, or whole and around the clock.",
)
@click.option(
    "--against", default="reference", show_default=True, help="The node for sensitivity and Monte Carlo: spot, ..."
)
@shared_options
def tco(
    rate: float | None,
    sites: float,
    device_utilisation: float,
    node_utilisation: float,
    bytes_out: float,
    device_rate: float | None,
    node_rate: float | None,
    billing: str,
    against: str,
    price_file: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Say what a million inferences and a month cost on a device and on rented nodes.

    Counts write-off, spares, power and operations of devices, rent and egress of nodes; gives the rate at which edge
    and cloud break even, what each input does to the result alone (the widest swing first), and an interval over all
    of them at once. Prices, their date, currency and uncertainty come from the price file.

    \b
      hybrid-router tco
      hybrid-router tco --rate 10 --node-utilisation 40% --bytes-out 100000
      hybrid-router tco --rate 100 --billing always-on --against spot --json
    """
    from planning.ownership import Demand
    from planning.ownership import tco as total_cost
    from planning.wording import tco_text

    demand = Demand(
        rate_per_second=rate,
        device_utilisation=device_utilisation,
        node_utilisation=node_utilisation,
        sites=int(sites),
        bytes_out=bytes_out,
        billing=cast("Billing", billing),
        against=against,
        device_per_second=device_rate,
        node_per_second=node_rate,
    )
    try:
        cost = total_cost(_prices(price_file), demand, seed)
    except Nonsense as error:
        raise click.ClickException(str(error)) from None
    _say(cost.as_json() if as_json else tco_text(cost))


def _prices(file: Path | None) -> Prices:
    from planning.price_file import default_prices, load_prices

    if file is None:
        return default_prices()
    with readable():
        return load_prices(file.read_bytes(), str(file))


def _asked() -> Workload:
    from planning.questions import ask_for_workload

    return ask_for_workload()


def _workload(file: Path) -> Workload:
    from planning.workload_file import load_workload

    with readable():
        return load_workload(file.read_bytes(), str(file))


def _measured(workload: Workload, what: Sequence[str]) -> Workload:
    if not what:
        return workload
    from planning.measure import MeasurementFailed, measure_cloud, measure_model
    from planning.measurements import with_cloud, with_model

    for subject in sorted(
        what, key=lambda subject: "://" in subject
    ):  # the file first: it says what the cloud is asked
        click.echo(f"Measuring {subject} ...", err=True)
        try:
            if "://" in subject:
                url, model, version = _cloud(subject, workload)
                workload = with_cloud(workload, measure_cloud(url, model, version))
            else:
                workload = with_model(workload, measure_model(Path(subject)))
        except MeasurementFailed as error:
            raise click.ClickException(str(error)) from None
    return workload


def _cloud(subject: str, workload: Workload) -> tuple[str, str, str]:
    """Address, model and version; what the address leaves out comes from the workload."""
    scheme, _, rest = subject.partition("://")
    place, _, model = rest.partition("/")
    known = workload.serving.cloud if workload.serving else None
    if scheme not in ("grpc", "grpcs") or not place.rpartition(":")[2].isdigit():
        raise click.UsageError(f"--measure {subject} must look like grpc://host:8001/MODEL.")
    if model:
        return f"{scheme}://{place}", model, ""
    if known is None:
        raise click.UsageError(f"--measure {subject} names no model, and neither does the workload's serving.cloud.")
    return f"{scheme}://{place}", known.name, known.version


def _say(result: dict[str, Any] | str) -> None:
    click.echo(
        result if isinstance(result, str) else orjson.dumps(result, option=orjson.OPT_INDENT_2).decode(),
        nl=not isinstance(result, str),
    )
