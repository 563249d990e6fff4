"""The command line: `hybrid-router serve`, and everything else that is done to or with a gateway from a terminal.

What a command needs is imported when it runs, so that none waits for what another needs.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import client
from app.device_command import device
from app.models_command import models
from app.places import DEFAULT_MODELS, DEFAULT_POLICY, DEFAULT_STATE
from app.policy_command import check_policy, load_policy, policy
from conformance.command import conformance
from drills.command import drill
from planning.bench.command import bench
from planning.command import advise, tco

if TYPE_CHECKING:
    from app.settings import Settings

CLOUD_LOOK_EVERY_S = 0.2

CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "auto_envvar_prefix": "HYBRID_ROUTER",
}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="hybrid-router")
def main() -> None:
    """Decides, per request and on the device, whether a local model or a cloud GPU answers.

    Start with `hybrid-router demo`, which needs nothing but this machine; then write a policy file of your own, check
    it with `hybrid-router policy check`, and run `hybrid-router serve --policy FILE`.
    """


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that serves. None leaves a setting to the environment."""
    for option in (
        click.option(
            "--models-dir", type=click.Path(path_type=Path), help=f"Model files.  [default: {DEFAULT_MODELS}]"
        ),
        click.option("--policy", type=click.Path(path_type=Path), help=f"Policy file.  [default: {DEFAULT_POLICY}]"),
        click.option(
            "--state-dir", type=click.Path(path_type=Path), help=f"Budgets' books.  [default: {DEFAULT_STATE}]"
        ),
        click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.  [default: 8080]"),
        click.option("--host", help="Address; any but loopback needs HYBRID_ROUTER_API_KEY.  [default: 127.0.0.1]"),
    ):
        command = option(command)
    return command


def _collect_nothing_yet() -> None:
    """Leaves the garbage collector off until the gateway is there: a start makes little garbage and much else."""
    gc.disable()


def make_settings(**given: Any) -> Settings:
    """Settings from the command line, the environment and the defaults, in that order; checks the policy file.

    Raises:
        click.ClickException: Something is wrong with them; the message says what.
    """
    from pydantic import ValidationError

    from app.settings import Settings, last_good_policy

    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise click.ClickException("; ".join(map(_setting_problem, error.errors()))) from None
    try:
        check_policy(settings.policy)
    except click.ClickException:
        from app.policy_copy import PolicyCopy

        path = last_good_policy(settings)
        copy = PolicyCopy(path).read()
        if copy is None:
            raise
        load_policy(copy, path)  # the gateway starts from that, and says what is wrong
    return settings


def _setting_problem(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"])).upper()
    sentence = problem["msg"].removeprefix("Value error, ")
    return f"HYBRID_ROUTER_{name}: {sentence}" if name else sentence


@contextmanager
def _plainly(*errors: type[Exception]) -> Iterator[None]:
    """Says what keeps the gateway from starting in a sentence, without a traceback."""
    from router.ledger import LedgerHeld

    try:
        yield
    except (LedgerHeld, *errors) as error:  # type: ignore[misc]
        raise click.ClickException(str(error)) from None


@main.command()
@serving_options
@click.option(
    "--grpc-port", metavar="PORT|off", help="Port for gRPC; 0 takes a free one, off takes none.  [default: 8081]"
)
@click.option(
    "--fd", type=click.IntRange(3), help="Listen on this inherited socket instead, as systemd hands one over (3)."
)
def serve(**options: Any) -> None:
    """Run the gateway.

    Everything can also be set in the environment, with the prefix HYBRID_ROUTER_: HOST, PORT, GRPC_PORT, FD, POLICY,
    MODELS_DIR, STATE_DIR, API_KEY, MAX_BODY_BYTES, BODY_TIMEOUT_S, DRAIN_NOTICE_S, DRAIN_TIMEOUT_S. The policy file is
    followed while the gateway runs. Needs neither the cloud nor a WAN to start.

    SIGTERM makes /readyz say no, then closes the door, and lets requests under way end; Ctrl-C does without the notice.
    With --fd, connections that arrive while the gateway is restarted wait in the socket, and are answered.
    """
    _collect_nothing_yet()
    from app.server import ListenRefused
    from app.server import serve as run

    settings = make_settings(**options)
    with _plainly(ListenRefused):
        run(settings, lambda doors: click.echo(f"hybrid-router listens on {doors}, policy {settings.policy}"))


@main.command()
@serving_options
@click.option("--grpc-port", default=8001, show_default=True, help="The cloud's gRPC port; 0 takes a free one.")
@click.option("--http-port", default=8000, show_default=True, help="The cloud's HTTP port.")
@click.option("--metrics-port", default=8002, show_default=True, help="The cloud's metrics port.")
def demo(grpc_port: int, http_port: int, metrics_port: int, **options: Any) -> None:
    """Run a real Triton on loopback as the cloud, and the gateway before it.

    Where Triton cannot start, the gateway starts all the same, says why, and serves locally. Ctrl-C stops both.
    """
    _collect_nothing_yet()
    from app.cloud import CloudPorts
    from app.demo import run_demo
    from app.server import ListenRefused

    with _plainly(ListenRefused):
        run_demo(make_settings(**options), CloudPorts(grpc_port, http_port, metrics_port), click.echo)


@main.command()
@click.option("--grpc-port", default=8001, show_default=True, help="gRPC port; 0 takes a free one.")
@click.option("--http-port", default=8000, show_default=True, help="HTTP port.")
@click.option("--metrics-port", default=8002, show_default=True, help="Metrics port.")
@click.option(
    "--repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Triton model repository.  [default: the sample models]",
)
def cloud(grpc_port: int, http_port: int, metrics_port: int, repository: Path | None) -> None:
    """Run only the cloud: a real Triton on loopback with the sample models, or with those of a repository.

    `make cloud` installs it into an environment of its own, .venv-cloud. Kill it, stop it, start it again: that is
    what it is for.
    """
    from app.cloud import CloudPorts, CloudUnavailable, TritonProcess
    from app.cloud_install import DEFAULT_REPOSITORY

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ports = CloudPorts(grpc_port, http_port, metrics_port)
    try:
        with TritonProcess(ports, repository=repository or DEFAULT_REPOSITORY) as triton:
            click.echo(f"Triton {triton.pid} serves {triton.grpc_url} and {triton.http_url}; Ctrl-C stops it.")
            while triton.running:
                time.sleep(CLOUD_LOOK_EVERY_S)
            raise click.ClickException(f"Triton ended by itself; the end of its log: {triton.log_tail() or 'empty'}")
    except CloudUnavailable as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        return


main.add_command(advise)
main.add_command(bench)
main.add_command(conformance)
main.add_command(device)
main.add_command(drill)
main.add_command(client.infer)
main.add_command(client.status)
main.add_command(models)
main.add_command(policy)
main.add_command(tco)
