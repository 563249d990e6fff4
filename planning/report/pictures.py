"""The plots: cost over the rate, sensitivity, the interval, and latencies.

Each draws on a figure, or on a part of one, that is `WIDTH` wide. Lines and bars carry their names; colour says nothing
that shape and text do not say too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, NullFormatter

from planning.ownership import Curves
from planning.report.break_evens import Crossing
from planning.report.latencies import LatencyCurve
from planning.report.palette import FAINT, INK, QUIET, look
from planning.report.typeface import short
from planning.rubric import CHOICES, Choice
from planning.uncertainty import Spread, Swing
from planning.wording import money, shown

WIDTH = 7.0
"""Inches."""
NEAR_THE_END = 0.12
"""Where a word is no longer centred, as a share of the axis."""
LINE_HEIGHT = 0.07
"""Least distance of two labels at the ends of lines, as a share of the axis."""


def draw_costs(
    figure: FigureBase,
    curves: Curves,
    rate: float,
    currency: str,
    crossings: Sequence[Crossing],
    ruled_out: frozenset[Choice],
) -> None:
    """Money for a million inferences over the rate, with the rate that is asked and where choices change places."""
    axis = _axes(figure, left=0.1, right=0.79, bottom=0.17, top=0.9)
    ends = {}
    for position, choice in enumerate(CHOICES):
        line, style = curves.per_million[choice], look(position)
        label = f"{choice} (ruled out)" if choice in ruled_out else choice
        axis.plot(
            curves.rates_per_second,
            line,
            color=style.colour,
            linestyle=style.dashes,
            linewidth=1.2 if choice in ruled_out else 2.2,
            marker=style.marker,
            markevery=(4 + 3 * position, 14),
            markersize=5,
        )
        ends[label] = (line[-1], style.text)
    _logarithmic(
        axis, "inferences a second, all sites together, on average", f"{short(currency)} per million inferences"
    )
    axis.set_xlim(curves.rates_per_second[0], curves.rates_per_second[-1])
    _label_ends(axis, ends)
    axis.axvline(rate, color=INK, linewidth=1, linestyle=":")
    _above(axis, rate, f"asked: {shown(rate)}/s")
    middle = np.sqrt(curves.rates_per_second[0] * curves.rates_per_second[-1])
    last = None
    for crossing in crossings:
        leftwards = crossing.rate_per_second > middle
        height = _place(axis, crossing.rate_per_second, crossing.per_million)[1]
        below = last is not None and abs(height - last) < 2 * LINE_HEIGHT
        last = height
        axis.plot(
            [crossing.rate_per_second],
            [crossing.per_million],
            "o",
            markersize=11,
            color=INK,
            fillstyle="none",
            zorder=5,
        )
        axis.annotate(
            crossing.text,
            (crossing.rate_per_second, crossing.per_million),
            (-10 if leftwards else 10, -15 if below else 9),
            textcoords="offset points",
            ha="right" if leftwards else "left",
            fontsize=8,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
            zorder=6,
        )


def draw_tornado(figure: FigureBase, swings: Sequence[Swing], middle: float, against: str, currency: str) -> None:
    """By how much each input alone moves the difference of device and cloud."""
    axis = _axes(figure, left=0.25, right=0.97, bottom=0.17, top=0.88)
    places = range(len(swings), 0, -1)
    for place, swing in zip(places, swings, strict=True):
        for end, value, style in ((0, swing.low, look(0)), (1, swing.high, look(1))):
            reach = swing.difference[end]
            axis.barh(
                place,
                reach - middle,
                0.62,
                middle,
                color=style.colour,
                hatch=style.hatch,
                edgecolor="white",
                linewidth=0,
            )
            twin = swing.difference[1 - end]
            right = reach > middle or (reach == middle and twin <= middle)
            axis.annotate(
                shown(value),
                (reach, place),
                (3 if right else -3, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=8,
                color=style.text,
            )
    axis.set_yticks(list(places), [swing.field.replace("_", " ") for swing in swings], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.axvline(middle, color=INK, linewidth=1)
    axis.margins(x=0.14)
    low, high = axis.get_xlim()
    if low < 0 < high:
        axis.axvline(0, color=INK, linewidth=1.2, linestyle="--")
        _above(axis, 0, "equal", 1)
    axis.set_xlabel(
        f"device over {short(against)}, {short(currency)} a month: below 0 the device is cheaper", fontsize=9
    )
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _above(axis, middle, f"as assumed: {middle:,.0f}", 12 if low < 0 < high else 1)


def draw_interval(figure: FigureBase, spread: Spread, against: str, currency: str) -> None:
    """Between what a million inferences cost, all inputs drawn at once."""
    axis = _axes(figure, left=0.16, right=0.97, bottom=0.27, top=0.97)
    rows = (("device", spread.edge_per_million, look(0)), (against, spread.cloud_per_million, look(2)))
    for place, (_, quantiles, style) in zip((1, 0), rows, strict=True):
        low, middle, high = quantiles.values()
        axis.plot([low, high], [place, place], color=style.colour, linestyle=style.dashes, linewidth=3)
        axis.plot([low, high], [place, place], "|", color=style.colour, markersize=14, markeredgewidth=2)
        axis.plot([middle], [place], style.marker, color=style.colour, markersize=9)
        for value, name, side in ((low, "P5", "right"), (middle, "P50", "center"), (high, "P95", "left")):
            axis.annotate(
                f"{name} {money(value)}",
                (value, place),
                (0, -17 if side == "center" else 10),
                textcoords="offset points",
                ha=side,
                fontsize=8,
                color=style.text,
            )
    axis.set_yticks([1, 0], [short(name) for name, _, _ in rows], fontsize=9)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(-0.8, 1.7)
    if axis.dataLim.x0 > 0:
        axis.set_xscale("log")
    axis.margins(x=0.2)
    axis.set_xlabel(f"{short(currency)} per million inferences", fontsize=9)
    _plain_ticks(axis)


def draw_latencies(figure: FigureBase, curves: Sequence[LatencyCurve], target_ms: float) -> None:
    """Which share of requests was answered within which time."""
    axis = _axes(figure, left=0.1, right=0.97, bottom=0.16, top=0.9)
    for position, curve in enumerate(curves):
        style = look(position)
        axis.plot(
            curve.sorted_ms,
            curve.share,
            drawstyle="steps-post",
            color=style.colour,
            linestyle=style.dashes,
            linewidth=2,
            marker=style.marker,
            markevery=(0.05 + 0.03 * position, 0.25),
            markersize=5,
            label=short(curve.name),
        )
    axis.set_xscale("log")
    axis.set_ylim(0, 1.01)
    axis.set_ylabel("share of requests", fontsize=9)
    axis.set_xlabel("answered within, ms", fontsize=9)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    _plain_ticks(axis)
    axis.axvline(target_ms, color=INK, linewidth=1, linestyle=":")
    axis.axhline(0.95, color=INK, linewidth=1, linestyle=":")
    _above(axis, target_ms, f"P95 target {shown(target_ms)} ms")
    # Curves cross, so that labels beside them would not say whose they are.
    axis.legend(fontsize=8, frameon=True, framealpha=0.9, edgecolor=FAINT, handlelength=4, loc="best")


def _axes(figure: FigureBase, **margins: float) -> Axes:
    axis: Axes = figure.subplots(1, 1)
    figure.subplots_adjust(**margins)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(QUIET)
    axis.tick_params(labelsize=8, colors=INK)
    axis.grid(True, axis="x", color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)
    return axis


def _logarithmic(axis: Axes, below: str, beside: str) -> None:
    axis.set_xscale("log")
    if axis.dataLim.y0 > 0:  # it is not where something is free
        axis.set_yscale("log")
    axis.set_xlabel(below, fontsize=9)
    axis.set_ylabel(beside, fontsize=9)
    _plain_ticks(axis)


def _plain_ticks(axis: Axes) -> None:
    """Numbers rather than powers of ten; between decades only where there are few."""
    for one in (axis.xaxis, axis.yaxis):
        if one.get_scale() != "log":
            continue
        low, high = one.get_view_interval()
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        few = high / low < 30
        minor = FuncFormatter(lambda value, _: f"{value:,.10g}" if f"{value:e}"[0] in "25" else "")
        one.set_minor_formatter(minor if few else NullFormatter())
    axis.tick_params(which="minor", labelsize=8)


def _above(axis: Axes, x: float, text: str, lift: float = 1) -> None:
    """A word over a vertical line, outside the plot but not beyond its ends."""
    place = _place(axis, x, 1)[0]
    axis.annotate(
        text,
        (x, 1),
        (0, 2 + lift),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if place < NEAR_THE_END else "right" if place > 1 - NEAR_THE_END else "center",
        va="bottom",
        fontsize=8,
        color=INK,
        annotation_clip=False,
    )


def _place(axis: Axes, x: float, y: float) -> tuple[float, float]:
    """Where a point is, as shares of the axes."""
    across, up = axis.transAxes.inverted().transform(axis.transData.transform((x, y)))
    return float(across), float(up)


def _label_ends(axis: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Names at the right ends of lines, moved apart where they would cover one another."""
    heights = {name: _place(axis, 1, y)[1] for name, (y, _) in ends.items()}
    lowest = -1.0
    for name in sorted(heights, key=heights.__getitem__):
        height = max(heights[name], lowest + LINE_HEIGHT)
        lowest = height
        axis.annotate(
            name,
            (1, height),
            (5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=ends[name][1],
            fontweight="bold",
            annotation_clip=False,
        )
