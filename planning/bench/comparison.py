"""Whether two results differ, cell by cell, or only look as if they did. Pure.

The interval of a difference is a bootstrap's. Few rounds say little about how rounds differ, so their intervals are
widened by Student's factor for as many.

Invariants:

- Of two results of the same thing, at most `LEVEL` of the cells are said to differ, where each was measured in two
  rounds at least: the interval of each of a cell's figures is made for a third of that (Bonferroni). One round cannot
  tell what is its own: where neighbours are much alike, blocks of them tell too little, and no level is claimed.
- A quantile of too few requests is not compared at all.
- The same files and seed give the same result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from planning.bench.bootstrap import replicates
from planning.bench.results import CellResults, Results

LEVEL = 0.05
SHARES: Final[Mapping[str, float]] = {"P50": 0.5, "P95": 0.95, "P99": 0.99}
LEAST_ROUNDS = 2
"""Of each cell, for the level to hold: with fewer, nothing is known of how rounds differ."""

LEAST_BEYOND = 5
"""Answers that must lie above a quantile for its interval to mean something."""

NOTABLE_FAILURES = 0.01

LOAD = "busy at the start"

Verdict = Literal["slower", "faster", "no difference", "too few"]


class Incomparable(Exception):
    """Two results that must not be compared; the message says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One quantile of one cell, in milliseconds; of B minus A.

    Args:
        figure: P50, P95 or P99.
        a: In A.
        b: In B.
        low: The interval's lower end; None where there are too few.
        high: Its upper end.
        verdict: Whether B is slower or faster.
    """

    figure: str
    a: float
    b: float
    low: float | None
    high: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CellComparison:
    """A cell that both have.

    Args:
        key: Which.
        rounds: Those that are compared, of whichever has fewer: a round without an answer is not.
        differences: Its quantiles; none where A or B has no answer.
        failed: The share without an answer, in A and in B.
    """

    key: str
    rounds: int
    differences: tuple[Difference, ...]
    failed: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results, side by side.

    Args:
        seed: Of the bootstrap.
        level: At most this share of the cells is said to differ where nothing does; None: a cell has one round, and
            none can be told.
        warnings: What to mind, as sentences.
        cells: Those that both have.
    """

    seed: int
    level: float | None
    warnings: tuple[str, ...]
    cells: tuple[CellComparison, ...]


def compare(a: Results, b: Results, seed: int = 0) -> Comparison:
    """Compares two results of one plan.

    Raises:
        Incomparable: Their plans, models, payloads or prices differ, or they have no cell in common.
    """
    if a.plan_sha256 != b.plan_sha256:
        raise Incomparable(f"A measures the plan {_called(a)}, B {_called(b)}: {_what_differs(a, b)}.")
    others = {cell.key: cell for cell in b.cells}
    pairs = [(cell, others[cell.key]) for cell in a.cells if cell.key in others]
    if not pairs:
        raise Incomparable("They have no cell in common.")
    seeds = np.random.SeedSequence(seed).spawn(len(pairs))
    compared = tuple(_compare(*pair, np.random.default_rng(own)) for pair, own in zip(pairs, seeds, strict=True))
    of_one_round = [cell.key for cell in compared if cell.differences and cell.rounds < LEAST_ROUNDS]
    warnings = [*_warnings(a, b), *_own_to_rounds(of_one_round)]
    return Comparison(seed, None if of_one_round else LEVEL, tuple(warnings), compared)


def _compare(a: CellResults, b: CellResults, randomness: np.random.Generator) -> CellComparison:
    failed = (a.summary.failed_share, b.summary.failed_share)
    before, after = ([np.array(one.latency_us) for one in cell.rounds if one.latency_us] for cell in (a, b))
    if not before or not after:
        return CellComparison(a.key, 0, (), failed)
    rounds = min(len(before), len(after))
    return CellComparison(a.key, rounds, tuple(differences(before, after, randomness)), failed)


def differences(
    a: Sequence[NDArray[np.int64]], b: Sequence[NDArray[np.int64]], randomness: np.random.Generator
) -> list[Difference]:
    """The quantiles of B against those of A.

    Args:
        a: Each round's latencies in microseconds, in the order in which they were due; no round is empty.
        b: Likewise.
        randomness: Draws the replicates.
    """
    at_a, at_b = _quantiles(np.concatenate(a)), _quantiles(np.concatenate(b))
    observed = at_b - at_a
    shares = list(SHARES.values())
    drawn = replicates(b, shares, randomness) - replicates(a, shares, randomness)
    tail = LEVEL / len(SHARES) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    widened = _widening(min(len(a), len(b)), tail)
    low, high = observed + widened * (low - observed), observed + widened * (high - observed)
    fewest = min(sum(map(len, a)), sum(map(len, b)))
    found = []
    for number, (figure, share) in enumerate(SHARES.items()):
        enough = fewest * (1 - share) >= LEAST_BEYOND
        lower, upper = (float(low[number]) / 1000, float(high[number]) / 1000) if enough else (None, None)
        before, after = float(at_a[number]) / 1000, float(at_b[number]) / 1000
        found.append(Difference(figure, before, after, lower, upper, _verdict(lower, upper)))
    return found


def _verdict(low: float | None, high: float | None) -> Verdict:
    if low is None or high is None:
        return "too few"
    if low > 0:
        return "slower"
    return "faster" if high < 0 else "no difference"


def _quantiles(latencies: NDArray[np.int64]) -> NDArray[np.float64]:
    """By nearest rank, as in a summary."""
    ranks = [max(0, math.ceil(share * len(latencies)) - 1) for share in SHARES.values()]
    return np.partition(latencies, ranks)[ranks].astype(np.float64)


def _widening(rounds: int, tail: float) -> float:
    """What the interval of so few rounds must be widened by; 1 for a single one, which cannot know."""
    if rounds == 1:
        return 1.0
    normal, freedom = NormalDist().inv_cdf(1 - tail), 2 * (rounds - 1)
    # Student's quantile by its expansion around the normal one (Abramowitz and Stegun, 26.7.5).
    student = normal
    student += (normal**3 + normal) / 4 / freedom
    student += (5 * normal**5 + 16 * normal**3 + 3 * normal) / 96 / freedom**2
    student += (3 * normal**7 + 19 * normal**5 + 17 * normal**3 - 15 * normal) / 384 / freedom**3
    return math.sqrt(rounds / (rounds - 1)) * student / normal


def machines_differ(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    """In what two descriptions of a machine differ; how busy it was is no part of it."""
    return [name for name in dict.fromkeys([*a, *b]) if name != LOAD and a.get(name) != b.get(name)]


def _called(results: Results) -> str:
    return f"{results.plan.get('name', '')!r} ({results.plan_sha256[:8]})"


def _what_differs(a: Results, b: Results) -> str:
    fields = [name for name in dict.fromkeys([*a.plan, *b.plan]) if a.plan.get(name) != b.plan.get(name)]
    if fields:
        return f"they differ in {', '.join(fields)}"
    return "their model, payload or prices have other contents"


def _warnings(a: Results, b: Results) -> list[str]:
    warnings = [
        f"The machines differ in {name}: {a.machine.get(name, 'nothing')} in A, {b.machine.get(name, 'nothing')} in B."
        for name in machines_differ(a.machine, b.machine)
    ]
    for name, results in (("A", a), ("B", b)):
        if results.ended is None:
            warnings.append(f"{name} is not finished.")
    missing = {cell.key for cell in a.cells} ^ {cell.key for cell in b.cells}
    if missing:
        warnings.append(f"Only one of them has {', '.join(sorted(missing))}.")
    failed = {cell.key: cell.summary.failed_share for cell in a.cells}
    warnings += [
        f"{cell.key}: not as many failed in both, and latencies are of those that did not."
        for cell in b.cells
        if abs(cell.summary.failed_share - failed.get(cell.key, cell.summary.failed_share)) > NOTABLE_FAILURES
    ]
    late = {cell.key: None for results in (a, b) for cell in results.cells if cell.sent_late}
    if late:
        warnings.append(f"The sender itself was late, which is its machine's doing, in {', '.join(late)}.")
    return warnings


def _own_to_rounds(keys: list[str]) -> list[str]:
    if not keys:
        return []
    return [f"With one round, a difference may be that round's own and nothing more, in {', '.join(keys)}."]
