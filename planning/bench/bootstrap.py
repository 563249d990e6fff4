"""Quantiles of latencies that are drawn again, many times: what else might have been measured. Pure.

Blocks of neighbouring requests are drawn, since neighbours are alike (Künsch 1989), and so are rounds, since a machine
is not the same twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REPLICATES = 999

MOST_COUNTS = 1 << 14
"""Held at once of how often a latency is drawn, if one replicate needs no more: 128 KiB, which caches hold."""


def replicates(
    rounds: Sequence[NDArray[np.int64]], shares: Sequence[float], randomness: np.random.Generator
) -> NDArray[np.float64]:
    """The quantiles of as many latencies drawn again, many times. Sorted once: drawing is counting.

    Args:
        rounds: Each round's latencies in microseconds, in the order in which they were due; no round is empty.
        shares: The quantiles', such as 0.5; by nearest rank.
        randomness: Draws the replicates.

    Returns:
        Of shape (REPLICATES, shares), in microseconds.
    """
    latencies = np.concatenate(rounds)
    order = np.argsort(latencies, kind="stable")
    ordered = latencies[order]
    at_once = max(1, MOST_COUNTS // len(latencies))
    drawn = []
    for done in range(0, REPLICATES, at_once):
        times = times_drawn([len(one) for one in rounds], min(at_once, REPLICATES - done), randomness)
        times = times.take(order, axis=1)
        drawn.append(ordered[_at_shares(times, np.array(shares))])
    return np.concatenate(drawn).astype(np.float64)


def times_drawn(counts: Sequence[int], number: int, randomness: np.random.Generator) -> NDArray[np.int64]:
    """How often each latency is drawn, in blocks of its round, of which as many are drawn as there are.

    Args:
        counts: Each round's.
        number: Of replicates.
        randomness: Draws them.

    Returns:
        Of shape (number, latencies of all rounds).
    """
    rounds = randomness.integers(0, len(counts), (number, len(counts)))
    times = np.empty((number, sum(counts)), np.int64)
    end = 0
    for place, count in enumerate(counts):
        start, end = end, end + count
        times[:, start:end] = _times_in_blocks(count, rounds == place, randomness)
    return times


def _times_in_blocks(count: int, drawn: NDArray[np.bool_], randomness: np.random.Generator) -> NDArray[np.int64]:
    """How often each of a round's latencies is drawn, about as many in all whenever the round is.

    The end is followed by the beginning, so that each is as likely to be drawn.

    Args:
        count: The round's latencies.
        drawn: Of shape (replicates, rounds): whether this round is drawn.
        randomness: Draws the blocks.

    Returns:
        Of shape (replicates, count).
    """
    length = math.ceil(count ** (1 / 3))
    width = count + length
    replicate = np.nonzero(drawn)[0][:, np.newaxis]
    starts = replicate * width + randomness.integers(0, count, (len(replicate), math.ceil(count / length)))
    begun = np.bincount(starts.ravel(), minlength=len(drawn) * width).reshape(len(drawn), width)
    begun[:, length:] -= begun[:, :-length].copy()  # a block ends where its length is over
    times = begun.cumsum(axis=1)
    times[:, :length] += times[:, count:]
    return times[:, :count]


def _at_shares(times: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where each replicate's quantiles stand among the ordered latencies.

    Args:
        times: How often each is drawn, of shape (replicates, latencies).
        shares: The quantiles'.

    Returns:
        Of shape (replicates, shares).
    """
    number, width = times.shape
    up_to = times.cumsum()  # in one line, so that one search finds the quantiles of all replicates
    before = np.concatenate(([0], up_to[width - 1 :: width]))
    ranks = np.ceil(np.diff(before)[:, np.newaxis] * shares).astype(np.int64)
    places: NDArray[np.intp] = np.searchsorted(up_to, before[:-1, np.newaxis] + ranks)
    places -= width * np.arange(number)[:, np.newaxis]
    return places
