"""The letters of paper and pictures: which there are, and how much room they take.

The typeface comes with the plotting library, so that a report looks the same wherever it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Final

from matplotlib import style
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

SANS: Final = "DejaVu Sans"
MONO: Final = "DejaVu Sans Mono"
LONGEST_NAME: Final = 24
UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"


def drawing(**settings: Any) -> AbstractContextManager[None]:
    """The library's own settings, whatever the user's are, and a dollar that is a dollar rather than a formula."""
    chosen: dict[str, Any] = {"font.family": [SANS, "sans-serif"], "text.parse_math": False}
    return style.context(["default", chosen | settings])


def short(text: str) -> str:
    """A name that fits into a plot."""
    return drawable(text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…")


def visible(text: str) -> str:
    """The text without what has no shape of its own: controls, and marks that turn the direction of writing."""
    return "".join(letter if letter.isprintable() or letter == "\n" else UNKNOWN for letter in text)


def drawable(text: str, family: str = SANS) -> str:
    """The text, with a mark in place of each letter that the typeface lacks."""
    known = _letters(family)
    return "".join(letter if ord(letter) in known or letter == "\n" else UNKNOWN for letter in visible(text))


def width(text: str, size: float, family: str = SANS, weight: str = "normal") -> float:
    """How wide a line is, in points."""
    return _width(text, family, weight) * size


def folded(text: str, room: float, size: float, family: str = SANS, weight: str = "normal") -> Iterator[str]:
    """The lines that a text takes in a column.

    Args:
        text: It; its own line ends are kept.
        room: The column's width, in points.
        size: Of the letters, in points.
        family: Of the letters.
        weight: Of the letters.
    """
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if width(longer, size, family, weight) <= room:
                line = longer
                continue
            if line:
                yield line
            line = word
            while width(line, size, family, weight) > room:
                fits = _letters_that_fit(line, room, size, family, weight)
                yield line[:fits]
                line = line[fits:]
        yield line


def _letters_that_fit(word: str, room: float, size: float, family: str, weight: str) -> int:
    return next((end for end in range(len(word), 1, -1) if width(word[:end], size, family, weight) <= room), 1)


@cache
def _letters(family: str) -> frozenset[int]:
    return frozenset(get_font(findfont(family)).get_charmap())


@cache
def _width(text: str, family: str, weight: str) -> float:
    font = FontProperties(family=family, weight=weight, size=1)
    taken: tuple[float, float, float] = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return taken[0]
