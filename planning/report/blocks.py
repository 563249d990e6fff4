"""What a report is made of, whatever file it becomes. Pure values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import FigureBase

Draw = Callable[[FigureBase], None]
"""Draws a picture on an empty figure, or on a part of one."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text.

    Args:
        text: It.
        lead: Whether it is the sentence that all else is about.
    """

    text: str
    lead: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below heads; the first cell of a row names it.

    Args:
        caption: What is in it.
        heads: Of the columns.
        rows: Cells, as many in each row as there are heads.
        numbers: The columns that hold numbers.
        widths: How wide the columns are on paper, as shares of one another.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[float, ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot.

    Args:
        name: Unlike that of any other picture; letters and hyphens.
        caption: What it shows.
        in_words: The same for whoever cannot see it, figures included.
        height: Over its width.
        draw: Draws it.
    """

    name: str
    caption: str
    in_words: str
    height: float
    draw: Draw


@dataclass(frozen=True, slots=True)
class Listing:
    """A file's text, line by line.

    Args:
        text: It.
    """

    text: str


Block = Paragraph | Table | Picture | Listing


@dataclass(frozen=True, slots=True)
class Section:
    """What stands below one heading.

    Args:
        name: Unlike that of any other section; letters and hyphens.
        heading: Its heading.
        blocks: In order.
        in_short: Those that an overview on one sheet shows.
    """

    name: str
    heading: str
    blocks: tuple[Block, ...]
    in_short: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The whole of it.

    Args:
        title: The question.
        sections: In order, the answer first.
        made: By what, of what; the last line.
    """

    title: str
    sections: tuple[Section, ...]
    made: str
