"""What each figure may sensibly be. Everything that comes in from a file, an option or a prompt is held against this.

Invariants:

- Whatever passes `checked` is a finite number within its range, so no formula behind it can divide by zero.
- Whatever does not raises `Nonsense` and nothing else, be it text, nothing, or a whole number beyond any float.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final


class Nonsense(ValueError):
    """A figure that cannot be meant.

    Args:
        field: Its name.
        sentence: What is wrong with it and what would be sensible.
    """

    def __init__(self, field: str, sentence: str) -> None:
        self.field = field
        self.sentence = sentence
        super().__init__(f"{field}: {sentence}")


@dataclass(frozen=True, slots=True)
class Range:
    """What is sensible for one figure.

    Args:
        low: The least; 0 is left out where `above` is set.
        high: The greatest.
        unit: What it is counted in.
        above: Whether `low` itself is out.
        whole: Whether it is counted in whole numbers.
    """

    low: float
    high: float
    unit: str
    above: bool = False
    whole: bool = False

    def __contains__(self, value: float) -> bool:
        if not math.isfinite(value) or (self.whole and value != int(value)):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        least = f"above {self.low:,g} and up to" if self.above else f"from {self.low:,g} to"
        return f"{'a whole number ' if self.whole else ''}{least} {self.high:,.15g} {self.unit}".rstrip()


SHOWN_LETTERS = 40
SHARE = "(a share: 0.6 is 60 %)"

RANGES: Final[Mapping[str, Range]] = {
    # what things cost
    "hardware": Range(0, 1e6, "for one device"),
    "lifetime_years": Range(0.25, 20, "years"),
    "watts": Range(0, 2000, "W"),
    "operations_per_year": Range(0, 1e6, "a year and device"),
    "spares": Range(0, 5, "spare devices for each one in use"),
    "per_kwh": Range(0, 10, "for a kilowatt-hour"),
    "per_gb": Range(0, 10, "for a gigabyte"),
    "per_hour": Range(0, 1000, "an hour"),
    "usd_per_unit": Range(0, 1e4, "US dollars", above=True),
    "spread": Range(0, 0.99, SHARE),
    # how fast they are
    "device_per_second": Range(0, 1e9, "inferences a second", above=True),
    "node_per_second": Range(0, 1e7, "inferences a second", above=True),
    "inferences_per_second": Range(0, 1e7, "inferences a second", above=True),
    "counted_per_month": Range(0, 1e13, "inferences a month", above=True),
    # what is asked of them
    "rate_per_second": Range(0, 1e6, "inferences a second", above=True),
    "device_utilisation": Range(0, 1, SHARE, above=True),
    "node_utilisation": Range(0, 1, SHARE, above=True),
    "sites": Range(1, 1e6, "sites with a device each", whole=True),
    "bytes_out": Range(0, 1e9, "bytes for each inference"),
    # the workload
    "p95_target_ms": Range(0, 600_000, "ms", above=True),
    "deadline_ms": Range(0, 600_000, "ms", above=True),
    "edge_p95_ms": Range(0, 600_000, "ms", above=True),
    "cloud_compute_p95_ms": Range(0, 600_000, "ms", above=True),
    "round_trip_ms": Range(0, 10_000, "ms"),
    "uplink_mbit_per_second": Range(0, 1e6, "Mbit/s", above=True),
    "size_mb": Range(0, 1e6, "MB", above=True),
    "memory_mb": Range(0, 1e7, "MB", above=True),
    "device_memory_mb": Range(0, 1e6, "MB", above=True),
    "parameters_billion": Range(0, 10_000, "billion parameters (0: not a language model)"),
    "vram_gb": Range(0, 10_000, "GB"),
    "concurrent": Range(1, 1e8, "requests at once"),
    "updates_per_month": Range(0, 1000, "updates a month"),
    "payload_bytes": Range(0, 1e9, "bytes for each inference", above=True),
    "device_part_p95_ms": Range(0, 600_000, "ms", above=True),
    "device_part_per_second": Range(0, 1e9, "inferences a second", above=True),
    "forwarded_share": Range(0, 1, SHARE),
    "forwarded_bytes": Range(0, 1e9, "bytes for each inference"),
    "confidence": Range(0, 1, "", above=True),
    "budget_per_month": Range(0, 1e9, "a month", above=True),
    # random draws
    "seed": Range(0, 2**32 - 1, "", whole=True),
    "samples": Range(1, 1e6, "draws", whole=True),
    # a benchmark plan
    "rounds": Range(1, 100, "rounds", whole=True),
    "warm_up_s": Range(0, 600, "seconds"),
    "per_second": Range(0, 20_000, "requests a second", above=True),
    "seconds": Range(0.5, 86_400, "seconds"),
    "burst": Range(1, 10_000, "requests at the same moment", whole=True),
    "rtt_ms": Range(0, 10_000, "ms"),
    "up_mbit_per_second": Range(0.01, 1e5, "Mbit/s"),
    "made_mb": Range(1, 500, "MB"),
    "image_side": Range(32, 512, "pixels", whole=True),
}


def checked(field: str, value: float) -> float:
    """The value, if it is sensible.

    Args:
        field: A key of `RANGES`.
        value: What was given.

    Raises:
        Nonsense: It is not; names the field and the sensible range.
    """
    number = _number(value)
    if number is None or number not in RANGES[field]:
        shown = _shown(value) if number is None else f"{number:g}"
        raise Nonsense(field, f"{shown} is not sensible; it must be {RANGES[field]}")
    return value


def check_word(field: str, value: Any, words: Sequence[str]) -> None:
    """Holds a word against those that are known.

    Args:
        field: What it is said of.
        value: What was given.
        words: The known ones.

    Raises:
        Nonsense: It is none of them; names the field and them.
    """
    if not isinstance(value, str) or value not in words:
        *others, last = map(repr, words)
        raise Nonsense(field, f"{_shown(value)} is not known; it must be {', '.join(others)} or {last}")


def _number(value: Any) -> float | None:
    """None for what is no number: text that reads as one is a mistake too, and so is true for 1."""
    if type(value) is float:
        return value  # as nearly all are: the rest of the question takes ten times as long
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(value: Any) -> str:
    """What was given, in brief."""
    try:
        shown = repr(value)
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return "a number of thousands of digits"
    return shown if len(shown) <= SHOWN_LETTERS else f"{shown[:SHOWN_LETTERS]}..."
