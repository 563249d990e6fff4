"""The picture of one scenario: who answered, how long it took, and what the gateway knew, before, during and after."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from drills.expectations import Expectation
from drills.judgement import Verdict
from drills.record import Sample

BIN_S = 0.25
DPI = 110
SHADE = "0.88"
WORD_TAKES = 0.12
"""Share of the width that a word takes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What can become of a request: its name, colour (Okabe and Ito's, for every eye), marker and hatch."""

    name: str
    colour: str
    marker: str
    hatch: str
    holds: Callable[[Sample, str], bool]


KINDS = (
    Kind("{remote}", "#0072B2", "o", "", lambda s, remote: s.answered and s.backend == remote),
    Kind("device, degraded", "#E69F00", "^", "//", lambda s, remote: s.answered and s.degraded),
    Kind("device", "#009E73", "s", "", lambda s, _: s.answered),
    Kind("refused, says when to retry", "#CC79A7", "d", "..", lambda s, _: s.retry_after is not None),
    Kind("no answer", "#000000", "x", "xx", lambda s, _: True),
)

STATES = {
    True: ("open for traffic", "#0072B2", ""),
    False: ("down", "#E69F00", "//"),
    None: ("gateway silent", "#000000", "xx"),
}


def draw(verdict: Verdict, expectation: Expectation) -> bytes:
    """Draws a scenario's timeline.

    Returns:
        A PNG.
    """
    record = verdict.record
    main = [sample for sample in record.samples if sample.stream == expectation.stream]
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes: tuple[Axes, Axes, Axes] = figure.subplots(3, 1, sharex=True, height_ratios=(4, 5, 0.7))
    rates, latencies, state = axes
    kinds = _sorted_out(main, expectation.remote)
    if main and main[0].due < main[-1].due:
        state.set_xlim(main[0].due - record.began, main[-1].due - record.began)
    _draw_rates(rates, kinds, record.began, expectation.remote)
    _draw_latencies(latencies, kinds, record.began)
    _draw_state(state, verdict, expectation)
    for axis in axes:
        axis.axvspan(0, record.ended - record.began, color=SHADE, zorder=0, linewidth=0)
        for edge in (0, record.ended - record.began):
            axis.axvline(edge, color="0.3", linewidth=1, linestyle=":", zorder=4)
        axis.spines[["top", "right"]].set_visible(False)
    rates.annotate(
        "fault",
        ((record.ended - record.began) / 2, 1),
        (0, 2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color="0.3",
    )
    state.set_xlabel("seconds since the fault began")
    figure.suptitle(f"{record.scenario}: {verdict.word}\n{record.fault}", fontsize=12)
    # Outside, so that it covers nothing.
    if rates.get_legend_handles_labels()[0]:
        figure.legend(*rates.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=DPI, format="png")
    return picture.getvalue()


def _sorted_out(samples: Sequence[Sample], remote: str) -> dict[Kind, list[Sample]]:
    kinds: dict[Kind, list[Sample]] = {kind: [] for kind in KINDS}
    for sample in samples:
        kinds[next(kind for kind in KINDS if kind.holds(sample, remote))].append(sample)
    return {kind: held for kind, held in kinds.items() if held}


def _draw_rates(axis: Axes, kinds: dict[Kind, list[Sample]], began: float, remote: str) -> None:
    everything = [sample.due - began for held in kinds.values() for sample in held]
    if everything:
        # One edge of the bins is the fault's begin, so that no bin holds some of both.
        edges = np.arange(np.floor(min(everything) / BIN_S), np.floor(max(everything) / BIN_S) + 2) * BIN_S
        below = np.zeros(len(edges) - 1)
        for kind, held in kinds.items():
            counts, _ = np.histogram([sample.due - began for sample in held], edges)
            axis.bar(
                edges[:-1],
                counts / BIN_S,
                BIN_S,
                below,
                align="edge",
                color=kind.colour,
                hatch=kind.hatch,
                edgecolor="white",
                linewidth=0,
                label=kind.name.format(remote=remote),
            )
            below += counts / BIN_S
        axis.set_ylim(0, below.max() * 1.1)
    axis.set_ylabel("requests per second,\nby who answered")


def _draw_latencies(axis: Axes, kinds: dict[Kind, list[Sample]], began: float) -> None:
    for kind, held in kinds.items():
        axis.scatter(
            [sample.due - began for sample in held],
            [max(sample.latency, 1e-5) * 1000 for sample in held],
            s=30 if kind.marker == "x" else 9,
            color=kind.colour,
            marker=kind.marker,
            linewidths=1.5 if kind.marker == "x" else 0,
            alpha=0.7,
        )
    deadlines = {sample.deadline for held in kinds.values() for sample in held}
    for deadline in deadlines:
        axis.axhline(deadline * 1000, color="0.2", linestyle="--", linewidth=1)
        axis.annotate(
            f"deadline {deadline * 1000:g} ms",
            (0, deadline * 1000),
            (4, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=9,
        )
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_ylabel("latency of each request\nfrom when it was due, ms")
    if deadlines:
        low, high = axis.get_ylim()
        axis.set_ylim(low, max(high, max(deadlines) * 2000))


def _draw_state(axis: Axes, verdict: Verdict, expectation: Expectation) -> None:
    record = verdict.record
    looks = [
        (sighting.at - record.began, None if sighting.up is None else sighting.up.get(expectation.watched))
        for sighting in record.sightings
    ]
    shown = axis.get_xlim()
    start = 0
    for end in range(1, len(looks) + 1):
        if end < len(looks) and looks[end][1] == looks[start][1]:
            continue
        up = looks[start][1]
        begins = max(looks[start][0], shown[0])
        ends = min(looks[min(end, len(looks) - 1)][0], shown[1])
        start = end
        if ends <= begins:
            continue
        word, colour, hatch = STATES[up]
        axis.barh(0, ends - begins, 1, begins, color=colour, hatch=hatch, edgecolor="white", linewidth=0, zorder=2)
        axis.text(
            (begins + ends) / 2,
            0,
            word,
            ha="center",
            va="center",
            color="black" if up is False else "white",
            fontsize=9,
            clip_on=True,
            visible=ends - begins
            > WORD_TAKES * (shown[1] - shown[0]),  # where a word does not fit, colour and hatch say it
            bbox={"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "none"},
            zorder=3,
        )
    axis.set_yticks([])
    axis.set_ylim(-0.6, 0.6)
    axis.set_ylabel(f"{expectation.remote}\nin /status", rotation=0, ha="right", va="center")
