"""Advice and costs as a terminal shows them. Pure: text out, nothing printed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from planning.advice import Advice
from planning.break_even import BreakEven
from planning.flips import Flip
from planning.judgement import Judgement
from planning.ownership import DEVICE, Tco
from planning.rubric import BEST, CHOICES
from planning.uncertainty import QUANTILES

WIDTH = 118
SHOWN_SWINGS = 8
SHOWN_CHANGES = 3


def advice_text(advice: Advice) -> str:
    """The recommendation, why, what would change it, and what it rests on."""
    return "\n".join(_advice(advice)) + "\n"


def tco_text(cost: Tco) -> str:
    """What each machine costs, where edge and cloud break even, and how sure that is."""
    return "\n".join(_tco(cost)) + "\n"


def _advice(advice: Advice) -> Iterator[str]:
    judgement = advice.judgement
    yield f"{advice.workload.name}: {verdict(advice)}"
    for constraint in judgement.constraints:
        yield f"  {constraint.name} rules out {constraint.excludes}: {constraint.reason}"
    for shortfall in shortfalls(advice.judgement):
        yield f"  {shortfall}"
    yield ""
    yield from _table(
        ["criterion (0 to 3)", *CHOICES, "here"],
        [
            *(
                [row.criterion, *(str(row.scores[choice].points) for choice in CHOICES), row.value]
                for row in judgement.rows
            ),
            [f"total (of {BEST * len(judgement.rows)})", *(str(judgement.totals[choice]) for choice in CHOICES), ""],
            [f"{advice.cost.currency} a month", *(f"{judgement.per_month[choice]:,.2f}" for choice in CHOICES), ""],
        ],
    )
    for row in judgement.rows:
        yield ""
        yield f"{row.criterion}: {row.threshold}"
        for choice in CHOICES:
            yield from _folded(f"  {choice:<5}  {row.scores[choice].points}  ", row.scores[choice].reason)
    yield ""
    yield from _flips(advice)
    yield ""
    yield "What it rests on:"
    yield from _table(
        ["figure", "value", "", "origin", "source"],
        [
            [figure.field, shown(figure.value), figure.unit, figure.provenance.origin, figure.provenance.source]
            for figure in advice.figures
        ],
    )


def verdict(advice: Advice) -> str:
    """The recommendation and its margin, in one clause."""
    judgement = advice.judgement
    if judgement.recommendation is None:
        return "nothing is left; these contradict one another"
    if judgement.runner_up is None:
        return f"{judgement.recommendation}, the only choice that is left"
    if judgement.margin:
        return f"{judgement.recommendation}, {judgement.margin} points ahead of {judgement.runner_up}"
    return f"{judgement.recommendation}, as many points as {judgement.runner_up}, and cheaper or simpler"


def shortfalls(judgement: Judgement) -> tuple[str, ...]:
    """A clause for every criterion that the recommendation misses."""
    choice = judgement.recommendation
    if choice is None:
        return ()
    return tuple(
        f"but {choice} has no point for {row.criterion}: {row.scores[choice].reason}"
        for row in judgement.rows
        if row.criterion in judgement.misses
    )


def _flips(advice: Advice) -> Iterator[str]:
    if not advice.flips:
        yield "No single input changes this, however far it moves."
        return
    yield "What would change it, the nearest first (one input alone, all others as they are):"
    for flip in advice.flips:
        becomes = flip.becomes or "nothing left"
        yield f"  {flip.field}: {shown(flip.now)} -> {shown(flip.at)}{how_far(flip)}: {becomes}"


def shown(value: object) -> str:
    """A figure or a word as people read it; numbers with four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def how_far(flip: Flip) -> str:
    """By which factor an input has to move, in brackets; empty for words and from nothing."""
    if flip.factor is None or flip.factor == float("inf"):
        return ""
    return f" ({flip.factor:.3g} times {'more' if flip.at > flip.now else 'less'})"


def _tco(cost: Tco) -> Iterator[str]:
    demand = cost.demand
    yield f"Prices of {cost.dated}, in {cost.currency}. The device is a {cost.device_name}."
    yield ""
    yield "One machine by itself:"
    yield from _table(
        ["machine", "used", "inferences a month", "a month", "per million"],
        [
            [
                reading.machine,
                f"{reading.utilisation:.3g}" if reading.utilisation < 0.01 else f"{reading.utilisation:.1%}",
                f"{reading.per_month:,.0f}",
                f"{reading.money_per_month:,.2f}",
                money(reading.money_per_million),
            ]
            for reading in cost.readings
        ],
    )
    yield ""
    yield (
        f"{demand.rate_per_second:,.4g} inferences a second at {demand.sites} sites, devices used up to "
        f"{demand.device_utilisation:.0%}, nodes up to {demand.node_utilisation:.0%} and paid {demand.billing}:"
    )
    yield from _table(
        ["machine", "machines", "a month", "per million", "made up of"],
        [
            [
                option.machine,
                f"{option.machines:,.4g}",
                f"{option.per_month:,.2f}",
                money(option.per_million),
                ", ".join(f"{name} {part:,.2f}" for name, part in option.parts.items()),
            ]
            for option in cost.options
        ],
    )
    yield ""
    yield "Break-even:"
    for name, changes in cost.break_evens.items():
        yield from _folded(f"  {name}: ", changes_text(cost, name, changes))
    yield ""
    yield f"Sensitivity, device over {demand.against} in {cost.currency} a month, one input at a time:"
    yield from _table(
        ["input", "from", "to", "device dearer by", "", ""],
        [
            [
                swing.field,
                f"{swing.low:,.4g}",
                f"{swing.high:,.4g}",
                f"{swing.difference[0]:+,.2f}",
                f"{swing.difference[1]:+,.2f}",
                "decides" if swing.decides else "",
            ]
            for swing in cost.tornado[:SHOWN_SWINGS]
        ],
    )
    more = len(cost.tornado) - SHOWN_SWINGS
    if more > 0:
        yield f"{more} more inputs matter less; --json has them."
    yield ""
    yield from _spread(cost)


def changes_text(cost: Tco, name: str, changes: Sequence[BreakEven]) -> str:
    """Where the device and one kind of node change places."""
    if not changes:
        highest = cost.curves.rates_per_second[-1]
        first, last = cost.curves.per_million[DEVICE][0], cost.curves.per_million[name][0]
        return f"the {'device' if first < last else 'cloud'} is cheaper at every rate up to {highest:,.4g}/s"
    words = [f"above {change.rate_per_second:,.4g}/s the {change.cheaper_above}" for change in changes[:SHOWN_CHANGES]]
    more = len(changes) - SHOWN_CHANGES
    return ", ".join(words) + " is cheaper" + (f", and {more} more changes" if more > 0 else "")


def _spread(cost: Tco) -> Iterator[str]:
    spread = cost.spread
    yield f"All inputs at once ({spread.samples:,} draws, seed {spread.seed}), against {cost.demand.against}:"
    rows = [
        ["device, per million", *(money(spread.edge_per_million[share]) for share in QUANTILES)],
        ["cloud, per million", *(money(spread.cloud_per_million[share]) for share in QUANTILES)],
    ]
    if spread.break_even_per_second is not None:
        rows.append(
            ["break-even by use, per second", *(f"{spread.break_even_per_second[share]:.3g}" for share in QUANTILES)]
        )
    yield from _table(["", *(f"P{share * 100:g}" for share in QUANTILES)], rows)
    yield f"The device is cheaper in {spread.edge_is_cheaper:.0%} of the draws."


def money(amount: float) -> str:
    """An amount with the digits that tell it apart."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.3f}"


def _folded(lead: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead)) or [lead]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as what is in them; numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    numeric = [all(_is_number(row[column]) for row in rows if row[column]) for column in range(len(head))]
    for row in (head, *rows):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        yield ("  " + "  ".join(cells)).rstrip()


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True
