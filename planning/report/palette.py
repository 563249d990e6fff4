"""Colours that every eye tells apart, and for each a line style and a marker that say the same without colour.

The colours are Okabe and Ito's (2008), the yellow and the sky blue left out: they are too pale for lines on white.
"""

from __future__ import annotations

from typing import Final, NamedTuple

INK: Final = "#111111"
QUIET: Final = "#595959"
"""For what stands behind: 7 to 1 on white."""
FAINT: Final = "#bbbbbb"
"""For rules; never for text."""


class Look(NamedTuple):
    """How one line is drawn.

    Args:
        colour: Of the line.
        text: Of its label: the same hue, dark enough to be read on white.
        dashes: A line style.
        marker: At some of its points.
        hatch: Of a bar.
    """

    colour: str
    text: str
    dashes: str | tuple[float, tuple[float, ...]]
    marker: str
    hatch: str


LOOKS: Final = (
    Look("#0072B2", "#00639A", "-", "o", ""),
    Look("#D55E00", "#A84A00", (0, (6, 2)), "s", "//"),
    Look("#009E73", "#006B4F", (0, (1.5, 1.5)), "^", ".."),
    Look("#CC79A7", "#96446F", (0, (6, 2, 1.5, 2)), "D", "xx"),
    Look("#E69F00", "#7F5800", (0, (3, 1, 1, 1, 1, 1)), "v", "\\\\"),
    Look("#000000", "#000000", (0, (10, 3)), "P", "++"),
)


def look(position: int) -> Look:
    """The look of the line at a position; after the last comes the first again."""
    return LOOKS[position % len(LOOKS)]
