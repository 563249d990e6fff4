"""Counters and histograms that are written on the hot path and read when Prometheus asks.

The library's own take a lock and a walk over the buckets for each update. All of ours are written by the event loop's
thread alone, so an update is an addition on an object that the writer keeps hold of; the library does the rest, from
the naming of samples to the exposition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One sample of a counter. Whoever counts adds to `value`, never anything negative."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Counts(Collector):
    """A counter with labels.

    Args:
        name: Without `_total`.
        text: What it counts.
        labels: The labels' names.
    """

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._samples: dict[tuple[str, ...], Count] = {}

    def of(self, *values: str) -> Count:
        """The sample with these values of the labels."""
        assert len(values) == len(self._labels), f"{self._name} has the labels {self._labels}"
        return self._samples.setdefault(values, Count())

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counter as it stands."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, sample in self._samples.items():
            family.add_metric(values, sample.value)
        yield family


class Distribution:
    """One sample of a histogram.

    Args:
        bounds: The buckets' upper bounds, ascending; what is above the last counts too.
    """

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Adds a value; one that equals a bound belongs to that bucket."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Distributions(Collector):
    """A histogram with labels.

    Args:
        name: Its name.
        text: What is observed.
        bounds: The buckets' upper bounds, ascending.
        labels: The labels' names.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._labels = labels
        self._samples: dict[tuple[str, ...], Distribution] = {}

    def of(self, *values: str) -> Distribution:
        """The sample with these values of the labels."""
        assert len(values) == len(self._labels), f"{self._name} has the labels {self._labels}"
        return self._samples.setdefault(values, Distribution(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as it stands."""
        bounds = [*(floatToGoString(bound) for bound in self._bounds), "+Inf"]
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, sample in self._samples.items():
            family.add_metric(values, list(zip(bounds, accumulate(sample.counts), strict=True)), sample.total)
        yield family
