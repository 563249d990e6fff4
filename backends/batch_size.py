"""How many rows may share a run of a model: found out when it is warmed up, from how long runs of it take."""

from __future__ import annotations

from collections.abc import Callable

MOST_ROWS = 64
"""Most models gain nothing by more."""

PAYS = 1.6
"""Twice the rows have to take less than so many times as long. What does not scale is as well run one by one, where the
first does not have to wait for the last."""

MEASURED_FOR_S = 0.25
"""A model that takes longer is measured no further: it is being waited for."""


def rows_that_pay(time_of: Callable[[int], float], most: int, clock: Callable[[], float]) -> int:
    """Doubles the rows of a run for as long as that saves time.

    A busy machine makes a run look long and never short, so what seems not to pay is tried again for as long as there
    is time.

    Args:
        time_of: Runs the model with so many rows; returns the seconds that a run took.
        most: Rows that are not exceeded, at least 1.
        clock: Gives monotonic seconds.

    Returns:
        A power of two.
    """
    give_up = clock() + MEASURED_FOR_S
    rows, took_s = 1, time_of(1)
    while 2 * rows <= most and clock() < give_up:
        doubled_s = time_of(2 * rows)
        while doubled_s > PAYS * took_s and clock() < give_up:
            doubled_s = min(doubled_s, time_of(2 * rows))
            took_s = min(took_s, time_of(rows))
        if doubled_s > PAYS * took_s:
            break
        rows, took_s = 2 * rows, doubled_s
    return rows
