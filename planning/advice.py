"""Whether a workload belongs on the edge, in the cloud or split, and what would change that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planning.flips import Flip, flips
from planning.judgement import Judgement, choice_curves, demand_of, judge
from planning.ownership import Curves, Tco, tco
from planning.plain import as_plain
from planning.price_file import default_prices
from planning.prices import Prices
from planning.ranges import RANGES
from planning.workload import FIGURES, Provenance, Workload

NOBODY_SAID = Provenance("assumed", "given by the caller")


@dataclass(frozen=True, slots=True)
class KnownFigure:
    """One figure that the advice rests on.

    Args:
        field: Which.
        value: What it is.
        unit: What it is counted in.
        provenance: Whether it was measured or assumed, and on what.
    """

    field: str
    value: float
    unit: str
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Advice:
    """The whole answer. `as_json` gives it as plain values, for pipelines and reports.

    Args:
        workload: What was asked.
        judgement: Scores, constraints, the recommendation and its margin.
        flips: Which input would change it, the nearest first.
        figures: Every figure of the workload, and whether it was measured.
        cost: What it costs on each kind of machine, over the rate, and how sure that is.
        curves: Money for a million inferences over the rate, by choice.
    """

    workload: Workload
    judgement: Judgement
    flips: tuple[Flip, ...]
    figures: tuple[KnownFigure, ...]
    cost: Tco
    curves: Curves

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = as_plain(
            {
                "workload": self.workload.name,
                **as_plain(self.judgement),
                "flips": self.flips,
                "figures": self.figures,
                "cost": self.cost.as_json(),
                "curves": self.curves,
            }
        )
        return plain


def advise(workload: Workload, prices: Prices | None = None, seed: int = 0) -> Advice:
    """Weighs a workload by the seven criteria and searches for what would change the outcome.

    Args:
        workload: What is asked.
        prices: The price file; the one that comes with the package where it is None.
        seed: Of the cost's Monte Carlo draws.

    Raises:
        Nonsense: It names a node that the price file does not have.
    """
    book = prices or default_prices()
    judgement = judge(workload, book)
    return Advice(
        workload=workload,
        judgement=judgement,
        flips=flips(workload, lambda other: judge(other, book).recommendation),
        figures=tuple(_figures(workload)),
        cost=tco(book, demand_of(workload), seed),
        curves=choice_curves(workload, book),
    )


def _figures(workload: Workload) -> list[KnownFigure]:
    known: Mapping[str, Provenance] = workload.provenance
    return [
        KnownFigure(name, getattr(workload, name), RANGES[name].unit, known.get(name, NOBODY_SAID)) for name in FIGURES
    ]
