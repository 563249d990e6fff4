"""The command `hybrid-router conformance`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conformance.check import Row
    from conformance.rest import Rest

NOT_CHECKED = 2
SHORTEST_S, LONGEST_S = 0.1, 3600.0


class CannotCheck(click.ClickException):
    """Nothing could be checked; says nothing about the server."""

    exit_code = NOT_CHECKED


def _bounded(_: click.Context, __: click.Parameter, seconds: float) -> float:
    """A time limit that ends: click's own ranges let NaN pass, which no comparison finds too long."""
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise click.BadParameter(f"{seconds:g} is not sensible; it must be from {SHORTEST_S:g} to {LONGEST_S:g} s.")
    return seconds


@click.command()
@click.argument("url")
@click.option("--grpc", "address", metavar="HOST:PORT", help="Check the server's gRPC side too, without TLS.")
@click.option("--model", help="The model to ask.  [default: the first that takes numbers and answers]")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option(
    "--timeout",
    type=float,
    callback=_bounded,
    default=10.0,
    show_default=True,
    help="Deadline of each call, from 0.1 to 3,600 seconds.",
)
@click.option("--api-key", envvar="HYBRID_ROUTER_API_KEY", help="The server's key, sent as a bearer token.")
def conformance(
    url: str, address: str | None, model: str | None, as_json: bool, timeout: float, api_key: str | None
) -> None:
    """Check how well the server at URL speaks the Open Inference Protocol v2, over REST and gRPC.

    Works with any server: it finds the models, makes inputs from their metadata, and holds the answers against the
    protocol's text, the binary tensor extension, and what the clients in use rely on. It sends some hundred small
    requests, wrong ones among them, and one of 32 MiB over gRPC; it changes nothing.

    \b
      hybrid-router conformance http://127.0.0.1:8080 --grpc 127.0.0.1:8081
      hybrid-router conformance http://127.0.0.1:8000 --grpc 127.0.0.1:8001 --json

    Exits with 0 if nothing failed that the protocol requires, with 1 if something did, with 2 if nothing could be
    checked.
    """
    from conformance.report import as_json as document
    from conformance.report import conforms, summary, table

    subject, rows = _check(url.rstrip("/"), address, model, timeout, api_key)
    if as_json:
        about = {
            "url": url,
            "grpc": address,
            "model": subject.subject.name,
            "models": [it.name for it in subject.models],
        }
        click.echo(document(rows, about))
    else:
        click.echo(f"{url} is asked for {subject.subject.name}.\n\n{table(rows)}\n\n{summary(rows)}")
    sys.exit(0 if conforms(rows) else 1)


def _check(
    url: str, address: str | None, model: str | None, timeout_s: float, api_key: str | None
) -> tuple[Rest, Sequence[Row]]:
    import grpc
    import httpx

    from conformance.bounded import BoundedTransport
    from conformance.catalogue import CHECKS
    from conformance.discovery import Unreachable, find_rest, find_rpc
    from conformance.rpc import CHANNEL_OPTIONS
    from conformance.run import run

    token = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    # Nothing is asked to be compressed, unless a check asks. A connection for each request: a server may close one
    # after an error, and what it then does to the next request is no matter of the protocol.
    headers, limits = {"accept-encoding": "identity"} | token, httpx.Limits(max_keepalive_connections=0)
    transport = BoundedTransport(httpx.HTTPTransport(limits=limits, trust_env=False), timeout_s, time.monotonic)
    try:
        with httpx.Client(base_url=url, timeout=timeout_s, headers=headers, transport=transport) as http:
            rest = find_rest(http, model)
            if address is None:
                return rest, list(run(CHECKS, rest, None))
            with grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
                return rest, list(run(CHECKS, rest, find_rpc(channel, address, timeout_s, list(token.items()), rest)))
    except (Unreachable, httpx.InvalidURL) as error:
        raise CannotCheck(str(error)) from None
