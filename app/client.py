"""The commands that talk to a gateway: `hybrid-router infer` and `hybrid-router status`."""

from __future__ import annotations

import mimetypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import orjson

GATEWAY = "http://127.0.0.1:8080"


def gateway_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that talks to a gateway."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the gateway's whole answer as JSON."),
        click.option("--api-key", envvar="HYBRID_ROUTER_API_KEY", help="The gateway's key, if it asks for one."),
        click.option("--url", envvar="HYBRID_ROUTER_URL", default=GATEWAY, show_default=True, help="The gateway."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("model")
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Send this image file.")
@click.option("--inputs", type=click.File("rb"), help='Send this JSON file, as {"NAME": nested list}; - is stdin.')
@click.option("--data-class", help="What kind of data it is; decides where it may go.")
@click.option("--deadline-ms", type=float, help="By when the answer must be there.")
@gateway_options
def infer(
    model: str,
    image: Path | None,
    inputs: Any,
    data_class: str | None,
    deadline_ms: float | None,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Ask MODEL something, and see which way the request went.

    \b
      hybrid-router infer digits --image deploy/models/seven.png
      echo '{"pixels": [[0, 0.5, ...]]}' | hybrid-router infer digits --inputs - --data-class phi
    """
    if (image is None) == (inputs is None):
        raise click.UsageError("Give either --image or --inputs.")
    facts = {"data_class": data_class, "deadline_ms": deadline_ms}
    facts = {name: value for name, value in facts.items() if value is not None}
    if image is not None:
        media_type = mimetypes.guess_type(image.name)[0] or "application/octet-stream"
        headers, params, body = {"Content-Type": media_type}, {"model": model} | facts, image.read_bytes()
    else:
        try:
            tensors = orjson.loads(inputs.read())
        except orjson.JSONDecodeError as error:
            raise click.ClickException(f"--inputs is not JSON: {error}") from None
        headers, params = {"Content-Type": "application/json"}, {}
        body = orjson.dumps({"model": model, "inputs": tensors} | facts)
    answer = _ask("POST", f"{url}/infer", api_key, headers=headers, params=params, content=body)
    if as_json:
        return _print_json(answer)
    for name, value in answer["outputs"].items():
        click.echo(f"{name}: {orjson.dumps(value).decode()}")
    route = answer["route"]
    click.echo(
        f"answered by {route['backend']} ({route['variant']}) in {route['latency_ms']:.1f} ms"
        f"{', degraded' if route['degraded'] else ''}: {route['reason']}\n"
        f"policy {route['policy']}, {route['bytes_out']} bytes left the site, ${route['cost_usd']:.9f}"
    )


@click.command()
@gateway_options
def status(url: str, api_key: str | None, as_json: bool) -> None:
    """Show what the gateway's policies see: who is up, how fast, at what price; and which policy file is in force."""
    seen = _ask("GET", f"{url}/status", api_key)
    policy = _ask("GET", f"{url}/policy", api_key)
    if as_json:
        return _print_json({"status": seen, "policy": policy})
    click.echo(f"policy {policy['file']}, generation {policy['generation']}, since {policy['in_force']['since']}")
    for problem in policy["problems"]:
        click.echo(f"  the file on disk is not in force: line {problem['line']}: {problem['message']}")
    rows = [("MODEL", "BACKEND", "SITE", "STATE", "P50 ms", "P95 ms", "SLO ms", "$/M", "")]
    for model, view in seen["models"].items():
        for target in view["targets"]:
            total = (target["latency"] or {}).get("total_ms", {})
            rows.append(
                (
                    model,
                    target["backend"],
                    target["site"],
                    target["breaker"] if target["available"] else f"{target['breaker']}, down",
                    *(f"{total[quantile]:.2f}" if total else "-" for quantile in ("p50", "p95")),
                    f"{view['slo_p95_ms']:g}",
                    f"{target['usd_per_million']:.2f}",
                    target["problem"] or "",
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())


def _ask(method: str, url: str, api_key: str | None, **request: Any) -> Any:
    import httpx  # when it is needed: it takes as long to import as all commands do

    headers = request.pop("headers", {}) | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    try:
        # A proxy from the environment must not stand between a device and its own gateway.
        with httpx.Client(trust_env=False, timeout=30.0) as http:
            response = http.request(method, url, headers=headers, **request)
            answer = orjson.loads(response.content)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(
            f"No gateway answers at {url} ({error}). Is `hybrid-router serve` running?"
        ) from None
    except orjson.JSONDecodeError:
        raise click.ClickException(f"{url} answers {response.status_code}, but not as a gateway does.") from None
    if response.is_error:
        click.echo(f"{answer.get('title', 'Error')} ({response.status_code}): {answer.get('detail', answer)}", err=True)
        sys.exit(1)
    return answer


def _print_json(document: Any) -> None:
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
