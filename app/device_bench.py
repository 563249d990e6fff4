"""What the steps of a HAT's check are given, hand on and end with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.hailo import HailoServable
from router.model import ModelSpec

Figures = Mapping[str, float | int | str]


class Skipped(Exception):
    """A step cannot be done here."""


class Absent(Exception):
    """There is no HAT, or nothing to reach one with."""


class Failed(Exception):
    """A step found something wrong."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be checked.

    Args:
        hef: A compiled model; without one, the steps that need it are skipped.
        golden: An .npz with `in.NAME` and `out.NAME` for every stream of it, rows first.
        tolerance: How far an output may be off, as a share of its range in the golden file.
        hot_s: Seconds of the run under full load; 0 skips it.
    """

    hef: Path | None
    golden: Path | None
    tolerance: float
    hot_s: float


@dataclass(slots=True)
class Bench:
    """What steps hand on to those behind them."""

    request: Request
    sdk: Any = None
    identity: Any = None
    model: ModelSpec | None = None
    servable: HailoServable | None = None
    held: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def opened(self) -> tuple[HailoServable, ModelSpec]:
        """The model that is on the HAT."""
        if self.servable is None or self.model is None:
            raise Skipped("give a compiled model with --hef" if self.request.hef is None else "no model is on the HAT")
        return self.servable, self.model


Done = tuple[str, Figures]
