"""The commands `hybrid-router policy`, and the policy file as every command reads it: every problem with its line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.places import DEFAULT_POLICY

if TYPE_CHECKING:
    from router.deployment import Deployment


def check_policy(path: Path) -> Deployment:
    """The deployment that a policy file describes.

    Raises:
        click.ClickException: It cannot be put in force; the message has every problem and its line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}. Name one with --policy FILE.") from None
    return load_policy(content, path)


def load_policy(content: bytes, path: Path) -> Deployment:
    """The same of a file's content; `path` is where it came from.

    Raises:
        click.ClickException: As `check_policy`.
    """
    from policies.document import PolicyFileError
    from policies.loader import load

    try:
        return load(content, str(path))
    except PolicyFileError as error:
        raise click.ClickException(str(error)) from None


@click.group()
def policy() -> None:
    """Check policy files, and help editors to."""


@policy.command()
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT_POLICY)
@click.option("--open", "models_dir", type=click.Path(path_type=Path), help="Also open the models in this folder.")
def check(file: Path, models_dir: Path | None) -> None:
    """Say what is wrong with FILE, line by line, or what it would put in force. Exits with 1 if it is not valid.

    With --open DIRECTORY every model is opened as the gateway would; servers are not contacted.
    """
    deployment = check_policy(file)
    if models_dir is not None:
        from app.trial import trial_problems

        problems = trial_problems(deployment, models_dir)
        if problems:
            raise click.ClickException("\n".join(problems))
    click.echo(f"{file} is valid.")
    for name, model in deployment.models.items():
        where = ", ".join(f"{variant.label} on {backend}" for backend, variant in model.variants.items())
        click.echo(f"  model {name}: {where}")
    for rule in deployment.routes:
        click.echo(f"  model {rule.model}, data class {rule.data_class}: policy {rule.policy}")


@policy.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors that complete and check YAML."""
    import orjson

    from policies.schema import json_schema

    click.echo(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2).decode())
