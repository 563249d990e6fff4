"""What is drawn again: blocks of neighbours, each as likely, and quantiles as of all that was drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.bench import bootstrap
from planning.bench.bootstrap import REPLICATES, replicates, times_drawn


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_as_many_rounds_are_drawn_in_whole_blocks_of_neighbours(counts: list[int], seed: int) -> None:
    times = times_drawn(counts, 5, np.random.default_rng(seed))
    assert times.shape == (5, sum(counts))
    assert times.min() >= 0
    own = np.split(times, np.cumsum(counts)[:-1], axis=1)
    lengths = [math.ceil(count ** (1 / 3)) for count in counts]
    in_a_round = [math.ceil(count / length) * length for count, length in zip(counts, lengths, strict=True)]
    drawn = [one.sum(axis=1) / whole for one, whole in zip(own, in_a_round, strict=True)]
    assert np.sum(drawn, axis=0) == pytest.approx(len(counts))
    assert all(share == round(share) for shares in drawn for share in shares)


def test_each_latency_is_as_likely_to_be_drawn() -> None:
    counts, number = [7, 30], 20_000
    times = times_drawn(counts, number, np.random.default_rng(0))
    expected = np.repeat([8 / 7, 32 / 30], counts)  # whole blocks of two, of four
    assert np.abs(times.mean(axis=0) - expected).max() < 6 * times.std(axis=0).max() / number**0.5


def test_neighbours_are_drawn_together() -> None:
    times = times_drawn([1000], 200, np.random.default_rng(0))
    assert np.abs(np.diff(times, axis=1)).sum() < 0.25 * np.abs(times - times[:, ::-1]).sum()


@pytest.mark.parametrize("counts", [[1], [3, 50], [90, 90, 90]])
@pytest.mark.parametrize("most", [1, 200, 1 << 20])
def test_quantiles_are_those_of_what_was_drawn(monkeypatch: pytest.MonkeyPatch, counts: list[int], most: int) -> None:
    monkeypatch.setattr(bootstrap, "MOST_COUNTS", most)
    rounds = [np.random.default_rng(1).integers(0, 50, count) for count in counts]
    shares = (0.01, 0.5, 0.95, 1.0)
    found = replicates(rounds, shares, np.random.default_rng(2))
    again, latencies, expected = np.random.default_rng(2), np.concatenate(rounds), []
    at_once = max(1, most // len(latencies))
    for done in range(0, REPLICATES, at_once):
        for times in times_drawn(counts, min(at_once, REPLICATES - done), again):
            written_out = np.sort(np.repeat(latencies, times))
            expected.append([written_out[math.ceil(share * len(written_out)) - 1] for share in shares])
    assert found.tolist() == expected
