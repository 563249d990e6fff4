"""What a verdict must be true to, held against records of drills that never were."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills import DEFAULT_FILE
from drills.expectations import EXPECTATIONS
from drills.figures import quantile
from drills.judgement import Verdict, judge
from drills.record import Record, Sample, Sighting, Wire
from drills.scenarios import SCENARIOS
from drills.slo import Slo, load_drill_file
from tests.unit.drills.records import (
    BEGAN,
    DETECTED_S,
    EDGE_S,
    ENDED,
    OVER,
    RECOVERED_S,
    answer,
    failure,
    fallback,
    outage,
    primary,
    shifted,
    with_sample,
)

SLO = load_drill_file(DEFAULT_FILE.read_text(), frozenset(EXPECTATIONS)).slo
OUTAGE = outage()
GENEROUS = replace(SLO, failed_max=5)


def verdict_on(record: Record, slo: Slo = SLO) -> Verdict:
    return judge(record, EXPECTATIONS[record.scenario], slo)


def failed_checks(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks if not check.passed}


def test_every_scenario_has_its_expectation() -> None:
    assert EXPECTATIONS.keys() == SCENARIOS.keys()


def test_an_outage_that_goes_well_passes() -> None:
    verdict = verdict_on(outage())
    assert verdict.word == "PASS", failed_checks(verdict)
    figures = verdict.figures
    assert figures.detection == pytest.approx(DETECTED_S, abs=0.011)
    assert figures.recovery == pytest.approx(RECOVERED_S, abs=0.05)
    assert (figures.flaps, figures.answered_twice, figures.worked_twice) == (2, 0, 30)
    assert figures.latency["outage"] is not None
    assert figures.latency["outage"].p99 == pytest.approx(EDGE_S * 1.8)


@given(st.floats(-1e5, 1e5))
def test_when_it_was_does_not_matter(seconds: float) -> None:
    there, here = verdict_on(shifted(OUTAGE, seconds)), verdict_on(OUTAGE)
    assert there.word == here.word
    assert [check.name for check in there.checks] == [check.name for check in here.checks]
    assert there.figures.failed == here.figures.failed
    assert there.figures.detection == pytest.approx(here.figures.detection, abs=1e-6)
    assert there.figures.recovery == pytest.approx(here.figures.recovery, abs=1e-6)


outages = st.sampled_from(
    (
        outage(),
        outage(lambda due, name: primary(due, name) if due < 12 else fallback(due, 0.1, name, paid=True)),
        outage(lambda due, name: answer(due, 0.02, "cloud", name)),
        with_sample(outage(), failure(10.0)),
        outage(scenario="cloud-hang"),
        outage(scenario="policy-garbage"),
    )
)


@given(
    outages, st.floats(4, OVER), st.sampled_from((0, 500, 503, 504)), st.booleans(), st.sampled_from((SLO, GENEROUS))
)
def test_one_more_failed_request_never_makes_a_verdict_better(
    record: Record, due: float, status: int, tried_the_cloud: bool, slo: Slo
) -> None:
    attempts = (("cloud", "dropped", "backend-timeout"),) if tried_the_cloud else ()
    more = verdict_on(with_sample(record, failure(due, "more", status=status, attempts=attempts)), slo)
    before = verdict_on(record, slo)
    assert before.passed >= more.passed
    assert failed_checks(before) <= failed_checks(more)
    assert more.figures.failures == before.figures.failures + 1


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Any request at all, sent on time."""
    due = draw(st.floats(0, 30))
    backend = draw(st.sampled_from(("cloud", "edge", "")))
    attempts = draw(st.lists(st.tuples(st.sampled_from(("cloud", "edge")), st.sampled_from(("success", "dropped")))))
    return Sample(
        draw(st.sampled_from(("primary", "phi", "local", "slow"))),
        draw(st.text(max_size=3)),
        due,
        due,
        due + draw(st.floats(0, 2)),
        draw(st.floats(0.01, 1)),
        draw(st.sampled_from((0, 200, 429, 500, 503, 504))),
        backend,
        draw(st.booleans()),
        tuple((*attempt, "") for attempt in attempts),
        retry_after=draw(st.sampled_from((None, 1.0))),
    )


@given(
    st.sampled_from(sorted(EXPECTATIONS)),
    st.lists(samples(), max_size=40),
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from((None, True, False))), max_size=20).map(
        lambda looks: sorted(looks, key=lambda look: look[0])
    ),
    st.floats(0, 20),
    st.floats(0, 10),
    st.booleans(),
)
def test_whatever_was_seen_can_be_judged(
    scenario: str,
    seen: list[Sample],
    looks: list[tuple[float, bool | None]],
    began: float,
    lasted: float,
    line_was_watched: bool,
) -> None:
    expectation = EXPECTATIONS[scenario]
    sightings = tuple(Sighting(at, None if up is None else {expectation.watched: up}) for at, up in looks)
    wire = Wire(0, 0, {}) if line_was_watched else None
    ordered = tuple(sorted(seen, key=lambda sample: sample.due))
    verdict = verdict_on(Record(scenario, "whatever", began, began + lasted, ordered, sightings, wire))
    figures = verdict.figures
    assert figures.detection is None or figures.detection >= 0
    assert figures.recovery is None or figures.recovery >= 0
    assert figures.failures + figures.excused == sum(not sample.answered for sample in seen)
    assert not verdict.passed, "nobody saw any phi on the line, but nobody saw anything else either"


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_a_value_that_was_seen(values: list[float], share: float) -> None:
    ordered = sorted(values)
    value = quantile(ordered, share)
    assert value in ordered
    assert sum(other <= value for other in ordered) >= share * len(ordered) - 1e-9
    assert sum(other < value for other in ordered) < share * len(ordered)


def test_the_p99_of_a_hundred_is_the_ninety_ninth() -> None:
    assert quantile(list(range(1, 101)), 0.99) == 99


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        pytest.param(with_sample(outage(), failure(6.0)), {"failed"}, id="a failure before the fault"),
        pytest.param(
            outage(lambda due, name: primary(due, name) if due != 12 else fallback(due, 0.26, name, paid=False)),
            {"late"},
            id="one late answer",
        ),
        pytest.param(
            outage(lambda due, name: primary(due, name) if due != 15 else fallback(due, 0.004, name, paid=True)),
            {"detection"},
            id="somebody still pays for the dead cloud",
        ),
        pytest.param(
            outage(
                lambda due, name: (
                    primary(due, name) if not BEGAN <= due < OVER else fallback(due, EDGE_S, name, paid=False)
                )
            ),
            {"recovery"},
            id="it never comes back",
        ),
        pytest.param(
            outage(
                lambda due, name: fallback(due, 0.02, name, paid=False) if BEGAN <= due < ENDED else primary(due, name)
            ),
            {"P99 in the outage"},
            id="slower than the device alone",
        ),
        pytest.param(
            outage(lambda due, name: answer(due, 0.004, "cloud", name)), {"fault was real"}, id="nothing was cut"
        ),
        pytest.param(replace(outage(), sightings=()), {"seen down"}, id="nobody could look at /status"),
        pytest.param(
            replace(outage(), wire=Wire(10, 1000, {"primary": 3, "phi": 1})),
            {"phi on the line"},
            id="phi left the site",
        ),
        pytest.param(
            replace(outage(), wire=Wire(10, 1000, {"primary": 0, "phi": 0})),
            {"line was watched"},
            id="the count counts nothing",
        ),
        pytest.param(with_sample(outage(), answer(12.5, 0.003, "edge", "p1250")), {"answered twice"}, id="twice"),
    ],
)
def test_what_is_wrong_is_named(record: Record, wrong: set[str]) -> None:
    verdict = verdict_on(record)
    assert failed_checks(verdict) == wrong
    assert verdict.word == "FAIL"


def test_what_the_scenario_itself_found_wrong_fails_it() -> None:
    assert verdict_on(replace(outage(), problems=("Another policy is in force.",))).word == "FAIL"


def test_a_state_that_changes_again_and_again_is_flapping() -> None:
    sightings = tuple(Sighting(at / 20, {"digits/cloud": at % 40 < 20}) for at in range(500))
    assert "flaps" in failed_checks(verdict_on(replace(outage(), sightings=sightings)))


def test_a_cable_that_is_pulled_five_times_may_change_the_state_ten_times() -> None:
    up = [Sighting(at, {"digits/cloud": not (BEGAN <= at < ENDED and int(at) % 2)}) for at in range(int(OVER))]
    record = replace(outage(scenario="wan-flap"), sightings=tuple(up))
    assert verdict_on(record).figures.flaps == 10
    assert "flaps" not in failed_checks(verdict_on(record))


def test_a_sender_that_cannot_keep_its_rate_gets_no_verdict() -> None:
    record = outage()
    late = tuple(replace(s, sent=s.due + 0.05) if i % 50 == 0 else s for i, s in enumerate(record.samples))
    verdict = verdict_on(replace(record, samples=late))
    assert verdict.word == "NO VERDICT"
    assert "could not keep its rate" in verdict.no_verdict


def refusal(due: float, id: str, latency: float = 0.002, retry_after: float | None = 1.0) -> Sample:
    return replace(
        failure(due, id, status=503, error="no-backend-available"), ended=due + latency, retry_after=retry_after
    )


def all_down(due: float, id: str) -> Sample:
    return (
        refusal(due, id, 0.2 if due < BEGAN + DETECTED_S else 0.002) if BEGAN <= due < ENDED + 0.9 else primary(due, id)
    )


def test_all_down_wants_prompt_refusals() -> None:
    verdict = verdict_on(outage(all_down, "all-down", "digits-cloud-only"))
    assert verdict.word == "PASS", failed_checks(verdict)
    assert verdict.figures.failures == 0
    assert verdict.figures.excused == 1_090


@pytest.mark.parametrize(
    "odd",
    [
        lambda due, name: refusal(due, name, latency=0.06),
        lambda due, name: refusal(due, name, retry_after=None),
        lambda due, name: fallback(due, 0.002, name, paid=False),
    ],
)
def test_all_down_wants_nothing_but_prompt_refusals(odd: object) -> None:
    assert callable(odd)
    record = outage(
        lambda due, name: odd(due, name) if due == 14 else all_down(due, name), "all-down", "digits-cloud-only"
    )
    assert failed_checks(verdict_on(record)) - {"fault was real"} == {"prompt refusals"}


def crash(due: float, id: str) -> Sample:
    """Killed with one request in flight; those that come until it is ready wait for it."""
    if due == BEGAN:
        return replace(failure(due, id), ended=due + 0.01)
    return answer(due, max(0.02, BEGAN + 1.4 - due), "cloud", id) if BEGAN < due < BEGAN + 1.4 else primary(due, id)


CRASH_FACTS = {"ready_s": 1.4, "budget_spent_before": 0.0010, "budget_spent_after": 0.0011}


def crashed(**facts: float) -> Record:
    return replace(outage(crash, "gateway-crash", facts=CRASH_FACTS | facts), ended=BEGAN + 1.4, sightings=())


def test_a_crash_excuses_what_was_in_flight_and_what_waited() -> None:
    record = outage(crash, "gateway-crash", facts=CRASH_FACTS)
    record = replace(
        record,
        ended=BEGAN + 1.4,
        samples=tuple(
            s if s.due < BEGAN + 1.4 else replace(primary(7.0, s.id), due=s.due, sent=s.due, ended=s.due + 0.02)
            for s in record.samples
        ),
    )
    verdict = verdict_on(record)
    assert verdict.word == "PASS", failed_checks(verdict)
    assert verdict.figures.excused == 1


@pytest.mark.parametrize(
    ("facts", "wrong"),
    [
        ({"ready_s": 2.1}, "ready again"),
        ({"budget_spent_after": 0.0009}, "budget drift"),
        ({"budget_spent_after": 0.9}, "budget drift"),
    ],
)
def test_a_crash_may_neither_take_long_nor_lose_count_of_money(facts: dict[str, float], wrong: str) -> None:
    assert wrong in failed_checks(verdict_on(crashed(**facts)))
    assert wrong not in failed_checks(verdict_on(crashed()))


@pytest.mark.parametrize(
    ("facts", "wrong"),
    [
        ({"peak_goodput": 80.0, "goodput": 70.0, "slo_ms": 250.0}, set()),
        ({"peak_goodput": 80.0, "goodput": 60.0, "slo_ms": 250.0}, {"goodput"}),
        ({"peak_goodput": 80.0, "goodput": 70.0, "slo_ms": 199.0}, {"P99 let in"}),
        ({}, {"goodput", "P99 let in"}),
    ],
)
def test_overload_is_judged_by_what_was_let_in(facts: dict[str, float], wrong: set[str]) -> None:
    def request(due: float, id: str) -> Sample:
        shed = replace(failure(due, id, status=429), ended=due + 0.002, retry_after=1.0)
        return replace(shed if int(due * 100) % 10 else answer(due, 0.2, "edge", id), stream="slow")

    assert failed_checks(verdict_on(outage(request, "overload", facts=facts))) == wrong


@pytest.mark.parametrize(("one_in", "wrong"), [(1000, set()), (200, {"P99 let in"})])
def test_what_was_let_in_and_ran_out_of_time_counts_as_slow(one_in: int, wrong: set[str]) -> None:
    def request(due: float, id: str) -> Sample:
        number = int(due * 100 + 0.5)
        if number % one_in == 0:
            return replace(failure(due, id, status=504), ended=due + 0.251, stream="slow")
        shed = replace(failure(due, id, status=429), ended=due + 0.002, retry_after=1.0)
        return replace(shed if number % 10 else answer(due, 0.2, "edge", id), stream="slow")

    facts = {"peak_goodput": 80.0, "goodput": 70.0, "slo_ms": 250.0}
    assert failed_checks(verdict_on(outage(request, "overload", facts=facts))) == wrong


def test_a_steady_outage_may_end_before_the_fault_does() -> None:
    def request(due: float, id: str) -> Sample:
        return fallback(due, 0.1, id, paid=False) if ENDED - 2 <= due < ENDED else primary(due, id)

    assert failed_checks(verdict_on(outage(request, "cloud-crash"))) == {"P99 in the outage"}
    assert failed_checks(verdict_on(outage(request, "cloud-crash", facts={"steady_s": 8.0}))) == set()


SPARED = {"peak_c": 72.5, "spared_at_c": 72.0, "back_at_c": 62.0, "back_below_c": 68.0}


def taking_turns(*changes: float, facts: dict[str, float]) -> Record:
    """A device that is spared from the first of these times on, back at the second, and so on."""

    def request(due: float, id: str) -> Sample:
        spared = sum(change <= due for change in changes) % 2
        return replace(answer(due, 0.003, "cloud" if spared else "edge", id), stream="kiosk")

    return outage(request, "overheat", facts=facts)


@pytest.mark.parametrize(
    ("changes", "facts", "wrong"),
    [
        ((11, 20), SPARED, set()),
        ((6, 12, 18, 24), SPARED, set()),
        ((), {"peak_c": 92.0, "back_below_c": 68.0}, {"peak", "spared", "back", "turns"}),
        ((11,), {"peak_c": 72.5, "spared_at_c": 72.0, "back_below_c": 68.0}, {"back", "turns"}),
        ((11, 20), SPARED | {"peak_c": 81.0}, {"peak"}),
        ((11, 20), SPARED | {"spared_at_c": 80.5, "peak_c": 80.5}, {"peak", "spared"}),
        ((11, 20), SPARED | {"back_at_c": 74.0}, {"back"}),
        ((11, 13, 15, 17, 19, 21), SPARED, {"turns"}),
    ],
)
def test_a_device_is_to_be_spared_in_time_and_not_to_flap(
    changes: tuple[float, ...], facts: dict[str, float], wrong: set[str]
) -> None:
    assert failed_checks(verdict_on(taking_turns(*changes, facts=facts))) == wrong


def test_a_single_answer_by_the_other_side_is_no_turn() -> None:
    record = with_sample(
        taking_turns(11, 20, facts=SPARED), replace(answer(14.001, 0.003, "edge", "odd"), stream="kiosk")
    )
    assert verdict_on(record).word == "PASS"
