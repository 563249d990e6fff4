"""An outage seen from outside, and how it is told."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills.figures import IN_A_ROW
from drills.progress import Progress
from drills.record import Sample
from drills.watch import Outage, find_outage
from tests.unit.drills.records import BEGAN, ENDED, RECOVERED_S, answer, failure, fallback, outage

WELL, ILL = True, False


def samples(wellness: list[bool]) -> list[Sample]:
    return [
        answer(float(at), 0.02, "cloud", f"{at}") if well else fallback(float(at), 0.2, f"{at}", paid=True)
        for at, well in enumerate(wellness)
    ]


def test_an_outage_is_seen_when_it_was() -> None:
    main = [sample for sample in outage().samples if sample.stream == "primary"]
    seen = find_outage(main, "cloud")
    assert seen is not None
    assert seen.began == pytest.approx(BEGAN)
    assert seen.ended == pytest.approx(ENDED + RECOVERED_S, abs=0.011)


def test_until_it_is_over_it_has_no_end() -> None:
    main = [sample for sample in outage().samples if sample.stream == "primary" and sample.due < ENDED]
    assert find_outage(main, "cloud") == Outage(BEGAN, None)


@given(st.lists(st.booleans(), max_size=80))
def test_only_rows_count(wellness: list[bool]) -> None:
    seen = find_outage(samples(wellness), "cloud")
    text = "".join("+" if well else "-" for well in wellness)
    began = text.find("-" * IN_A_ROW)
    if began < 0:
        assert seen is None
        return
    ended = text.find("+" * IN_A_ROW, began)
    assert seen == Outage(float(began), None if ended < 0 else float(ended))


def test_a_failure_is_no_answer_of_the_clouds() -> None:
    seen = find_outage([failure(float(at), f"{at}") for at in range(IN_A_ROW)], "cloud")
    assert seen == Outage(0.0, None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(out: io.StringIO) -> str:
    now = iter(range(1000))
    progress = Progress(out, lambda: float(next(now)))
    progress.scenario("1/2 wan-cut")
    progress.phase("fault", 10.0)
    for at in range(20):
        progress.saw([answer(at / 10, 0.02, "cloud", "a"), failure(at / 10)])
    progress.say("wan-cut: PASS")
    return out.getvalue()


def test_on_a_terminal_one_line_is_rewritten() -> None:
    text = told(Terminal())
    assert text.count("\n") == 1
    assert "40 requests | 20 failed | cloud 20 | P99 20.0 ms" in text.split("\r\x1b[K")[-2]


def test_elsewhere_lines_are_plain_and_few() -> None:
    lines = told(io.StringIO()).splitlines()
    assert len(lines) < 10
    assert lines[0].startswith("1/2 wan-cut | fault, ")
    assert lines[-1] == "wan-cut: PASS"
    assert not any("\x1b" in line or "\r" in line for line in lines)
