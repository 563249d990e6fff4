"""What a report says of money: the curves, the break-evens, what each input does, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from planning.advice import Advice
from planning.ownership import DEVICE
from planning.report.blocks import Paragraph, Picture, Section, Table
from planning.report.break_evens import Crossing, crossings
from planning.report.names import in_words, ruled_out
from planning.report.pictures import draw_costs, draw_interval, draw_tornado
from planning.rubric import CHOICES
from planning.uncertainty import QUANTILES, Swing
from planning.wording import changes_text, money, shown

SHOWN_SWINGS = 9


def costs(advice: Advice) -> Section:
    cost, judgement, workload = advice.cost, advice.judgement, advice.workload
    found = crossings(advice)
    curves = Picture(
        "costs",
        "What a million inferences cost over the rate. The vertical line is the rate that is asked.",
        _costs_in_words(advice, found),
        0.52,
        partial(
            draw_costs,
            curves=advice.curves,
            rate=workload.rate_per_second,
            currency=cost.currency,
            crossings=found,
            ruled_out=ruled_out(advice),
        ),
    )
    choices = Table(
        f"At the rate that is asked, in {cost.currency}",
        ("choice", "per million", "a month"),
        tuple(
            (choice, money(judgement.per_million[choice]), f"{judgement.per_month[choice]:,.2f}") for choice in CHOICES
        ),
        (2, 2, 2),
        frozenset({1, 2}),
    )
    machines = Table(
        f"All of it on one kind of machine, in {cost.currency}; nodes paid {cost.demand.billing}",
        ("machine", "machines", "a month", "per million", "made up of", "break-even with the device", "price"),
        tuple(
            (
                option.machine,
                f"{option.machines:,.4g}",
                f"{option.per_month:,.2f}",
                money(option.per_million),
                ", ".join(f"{name} {part:,.2f}" for name, part in option.parts.items()),
                ""
                if option.machine == DEVICE
                else changes_text(cost, option.machine, cost.break_evens[option.machine]),
                f"assumed: {option.source}",
            )
            for option in cost.options
        ),
        (1.5, 1.4, 1.6, 1.2, 2, 3, 2.5),
        frozenset({1, 2, 3}),
    )
    return Section("costs", "What it costs", (curves, choices, machines), (curves,))


def _costs_in_words(advice: Advice, found: Sequence[Crossing]) -> str:
    judgement = advice.judgement
    here = ", ".join(f"{choice} {money(judgement.per_million[choice])}" for choice in CHOICES)
    changes = "; ".join(crossing.text for crossing in found) or "none in the range shown"
    return (
        f"Line plot of the cost of a million inferences in {advice.cost.currency} over inferences a second, "
        f"for edge, split and cloud. At {shown(advice.workload.rate_per_second)} a second: {here}. "
        f"Break-even: {changes}."
    )


def sensitivity(advice: Advice) -> Section:
    cost = advice.cost
    swings = [swing for swing in cost.tornado if swing.width > 0][:SHOWN_SWINGS]
    currency, against = cost.currency, cost.demand.against
    if not swings:
        return Section("sensitivity", "Sensitivity", (Paragraph("No input is uncertain."),))
    options = {option.machine: option.per_month for option in cost.options}
    middle = options[DEVICE] - options[against]
    picture = Picture(
        "tornado",
        "What each input does alone: solid to its least value, hatched to its greatest; the values stand at the ends.",
        f"Tornado plot: the cost of devices less that of {against} in {currency} a month, {middle:,.2f} as assumed. "
        + " ".join(_swing_in_words(swing) for swing in swings),
        0.12 + 0.055 * len(swings),
        partial(draw_tornado, swings=swings, middle=middle, against=against, currency=currency),
    )
    table = Table(
        f"Device over {against}, in {currency} a month; all ranges are assumed, from the price file and the demand",
        ("input", "from", "to", "dearer by, at the least", "at the greatest", "decides alone"),
        tuple(
            (
                in_words(swing.field),
                shown(swing.low),
                shown(swing.high),
                f"{swing.difference[0]:+,.2f}",
                f"{swing.difference[1]:+,.2f}",
                "yes" if swing.decides else "no",
            )
            for swing in swings
        ),
        (2.5, 1.5, 1.5, 2, 2, 1.5),
        frozenset({1, 2, 3, 4}),
    )
    explained = Paragraph(
        f"All of it on devices is held against all of it on {against}; a split is not part of this. One input moves "
        f"between its least and its greatest value, all others stay. Below 0 the device is cheaper.{_but(advice)}"
    )
    return Section("sensitivity", "Sensitivity", (explained, picture, table), (picture,))


def _swing_in_words(swing: Swing) -> str:
    low, high = swing.difference
    return f"{in_words(swing.field)} from {shown(swing.low)} to {shown(swing.high)}: {low:+,.0f} to {high:+,.0f}."


def interval(advice: Advice) -> Section:
    cost, spread = advice.cost, advice.cost.spread
    against, currency = cost.demand.against, cost.currency
    rows = [
        ("device, per million", *(money(spread.edge_per_million[share]) for share in QUANTILES)),
        (f"{against}, per million", *(money(spread.cloud_per_million[share]) for share in QUANTILES)),
    ]
    if spread.break_even_per_second is not None:
        rows.append(
            ("break-even by use, per second", *(f"{spread.break_even_per_second[share]:.3g}" for share in QUANTILES))
        )
    table = Table(
        f"In {currency}; all of it on devices, or all of it on {against}",
        ("amount", *(f"P{share * 100:g}" for share in QUANTILES)),
        tuple(rows),
        (3, 1, 1, 1),
        frozenset({1, 2, 3}),
    )
    words = (
        f"All inputs are drawn at once, {spread.samples:,} times (seed {spread.seed}). "
        f"The device is cheaper than {against} in {spread.edge_is_cheaper:.0%} of the draws.{_but(advice)}"
    )
    picture = Picture(
        "interval",
        "Between P5 and P95 of what a million inferences cost.",
        f"{words} Device {_quantiles(rows[0])}; {against} {_quantiles(rows[1])} {currency} per million.",
        0.24,
        partial(draw_interval, spread=spread, against=against, currency=currency),
    )
    return Section("interval", "How sure the cost is", (Paragraph(words), picture, table), (Paragraph(words), picture))


def _but(advice: Advice) -> str:
    """A reminder that what is cheaper may not be open."""
    closed = [choice for choice in ("edge", "cloud") if choice in ruled_out(advice)]
    if not closed:
        return ""
    return f" But {' and '.join(closed)} {'are' if len(closed) > 1 else 'is'} ruled out, whatever it costs."


def _quantiles(row: Sequence[str]) -> str:
    return ", ".join(f"P{share * 100:g} {value}" for share, value in zip(QUANTILES, row[1:], strict=True))
