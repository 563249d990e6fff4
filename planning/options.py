"""How figures are read from the command line."""

from __future__ import annotations

from collections.abc import Callable

import click

from planning.ranges import RANGES, Nonsense, checked


def sensible(field: str) -> Callable[[str | float], float]:
    """What reads a figure from an option or an answer and holds it against its range; shares may be written as 60%.

    Args:
        field: A key of `RANGES`.
    """

    def number(given: str | float) -> float:
        text = str(given).strip()
        try:
            value = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
            return checked(field, int(value) if RANGES[field].whole and value % 1 == 0 else value)
        except Nonsense as error:
            raise click.BadParameter(str(error)) from None
        except ValueError:
            raise click.BadParameter(f"{field}: {text!r} is no number; it must be {RANGES[field]}") from None

    return number
