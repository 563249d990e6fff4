"""The worked cases come out as expected, constraints decide alone, and every flip that is named really flips."""

from __future__ import annotations

import math
from dataclasses import replace

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import planning
from planning.flips import STEP, flips, varied
from planning.judgement import judge
from planning.price_file import default_prices
from planning.ranges import Nonsense
from planning.rubric import CHOICES, Choice
from planning.wording import advice_text, shortfalls
from planning.workload import Provenance, Workload
from tests.unit.planning.workloads import EXAMPLES, example, slow_but_best, workloads

PRICES = default_prices()

EXPECTED = {
    "kiosk": ("edge", {"cloud", "split"}, "constraints"),
    "documents": ("split", {"cloud", "edge"}, "constraints"),
    "cameras": ("split", set(), "scores"),
    "llm-13b": ("cloud", {"edge", "split"}, "constraints"),
}


def recommend(workload: Workload) -> Choice | None:
    return judge(workload, PRICES).recommendation


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_worked_case(name: str) -> None:
    choice, excluded, decided_by = EXPECTED[name]
    judgement = planning.advise(example(name)).judgement
    assert judgement.recommendation == choice
    assert {constraint.excludes for constraint in judgement.constraints} == excluded
    assert judgement.decided_by == decided_by


def test_there_is_an_expectation_for_every_worked_case() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.yaml")} == set(EXPECTED)


def test_the_reasons_are_those_of_the_case() -> None:
    reasons = {name: {found.name for found in judge(example(name), PRICES).constraints} for name in EXPECTED}
    assert reasons["kiosk"] == {"residency", "offline", "nothing to split"}
    assert reasons["documents"] == {"residency", "does not fit"}
    assert reasons["llm-13b"] == {"does not fit", "nothing to split"}


@given(workloads)
def test_seven_criteria_each_with_threshold_and_reason(workload: Workload) -> None:
    judgement = judge(workload, PRICES)
    assert len(judgement.rows) == 7
    for row in judgement.rows:
        assert set(row.scores) == set(CHOICES)
        assert row.threshold
        assert row.value
        assert all(0 <= score.points <= 3 and score.reason for score in row.scores.values())
    for choice in CHOICES:
        assert judgement.totals[choice] == sum(row.scores[choice].points for row in judgement.rows)


@given(workloads)
def test_what_is_ruled_out_is_never_recommended_and_the_best_of_the_rest_is(workload: Workload) -> None:
    judgement = judge(workload, PRICES)
    left = {choice for choice in CHOICES if choice not in {found.excludes for found in judgement.constraints}}
    if not left:
        assert judgement.recommendation is None
        assert judgement.decided_by == "contradiction"
        return
    assert judgement.recommendation in left
    best = judgement.totals[judgement.recommendation]
    others = [judgement.totals[choice] for choice in left - {judgement.recommendation}]
    assert all(best >= other for other in others)
    assert judgement.margin == (best - max(others) if others else None)


@given(workloads)
def test_hard_constraints(workload: Workload) -> None:
    for forbidden, change in (
        ({"cloud", "split"}, {"residency": "stays"}),
        ({"cloud"}, {"residency": "redacted-only"}),
        ({"cloud", "split"}, {"offline": "required"}),
        ({"edge"}, {"parameters_billion": 13.0}),
        ({"edge"}, {"vram_gb": 40.0}),
        ({"edge"}, {"memory_mb": 9000.0, "device_memory_mb": 8000.0}),
        ({"edge", "split"}, {"concurrent": 10_000.0, "sites": 1}),
    ):
        assert recommend(replace(workload, **change)) not in forbidden


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a search takes too long to be shrunk
)
@given(workloads)
def test_every_flip_really_flips_and_no_step_before_it_does(workload: Workload) -> None:
    present = recommend(workload)
    for flip in flips(workload, recommend):
        assert flip.becomes != present
        assert recommend(varied(workload, flip.field, flip.at)) == flip.becomes
        assert flip.now == getattr(workload, flip.field)
        if flip.factor is None or math.isinf(flip.factor) or flip.field == "sites":
            continue
        steps = int(math.log(flip.factor, STEP)) - 1  # the value is rounded, by less than a step
        for step in range(1, steps):
            inside = flip.now * STEP ** (step if flip.at > flip.now else -step)
            assert recommend(varied(workload, flip.field, inside)) == present


def test_flips_stand_in_the_order_of_their_distance() -> None:
    found = planning.advise(example("cameras")).flips
    factors = [flip.factor for flip in found if flip.factor is not None]
    assert factors
    assert ("rate_per_second", 32, "cloud") in [
        (flip.field, flip.at, flip.becomes) for flip in found
    ]  # docs/planning.md
    assert factors == sorted(factors)
    assert {flip.field: flip.becomes for flip in found if flip.factor is None} == {
        "residency": "edge",
        "offline": "edge",
    }


def test_the_curves_meet_the_workload_at_its_rate() -> None:
    advice = planning.advise(example("cameras"))
    middle = len(advice.curves.rates_per_second) // 2
    assert advice.curves.rates_per_second[middle] == pytest.approx(400)
    for choice, line in advice.curves.per_million.items():
        assert line[middle] == pytest.approx(advice.judgement.per_million[choice])  # type: ignore[index]


def test_a_latency_target_between_the_thresholds_wants_measurements() -> None:
    """The same figures count for more where they were measured: 50 to 150 ms says `measure both`."""
    assumed = replace(example("kiosk"), p95_target_ms=100.0, edge_p95_ms=30.0)
    known = replace(assumed, provenance={**assumed.provenance, "edge_p95_ms": Provenance("measured", "here")})
    points = [judge(workload, PRICES).rows[0].scores["edge"].points for workload in (assumed, known)]
    assert points == [2, 3]


@pytest.mark.parametrize(("target", "cloud"), [(49.0, 0), (151.0, 3)])
def test_below_50_ms_an_assumed_cloud_does_not_count_and_above_150_it_does(target: float, cloud: int) -> None:
    near = replace(
        example("cameras"),
        p95_target_ms=target,
        round_trip_ms=5.0,
        cloud_compute_p95_ms=5.0,
        payload_bytes=1000.0,
    )
    assert judge(near, PRICES).rows[0].scores["cloud"].points == cloud


@given(workloads)
def test_what_the_recommendation_misses_is_told_apart_from_what_it_meets(workload: Workload) -> None:
    judgement = judge(workload, PRICES)
    choice = judgement.recommendation
    missed = [row.criterion for row in judgement.rows if choice is not None and row.scores[choice].points == 0]
    assert list(judgement.misses) == missed
    assert len(shortfalls(judgement)) == len(missed)


def test_a_choice_that_wins_and_misses_its_own_target_says_so() -> None:
    advice = planning.advise(slow_but_best())
    assert advice.judgement.recommendation == "edge"
    assert "\n  but edge has no point for latency: P95 of 900 ms is 300% of the target\n" in advice_text(advice)
    assert advice.as_json()["misses"] == ["latency"]
    assert "but" not in advice_text(planning.advise(example("kiosk"))).split("\n\n")[0]


def test_a_contradiction_is_said_and_what_would_solve_it() -> None:
    both = replace(example("llm-13b"), offline="required")
    advice = planning.advise(both)
    assert advice.judgement.recommendation is None
    assert "contradict" in advice_text(advice)
    assert "cloud" in {flip.becomes for flip in advice.flips if flip.field == "offline"}


def test_every_figure_says_where_it_comes_from() -> None:
    advice = planning.advise(example("kiosk"))
    sources = {figure.field: figure.provenance for figure in advice.figures}
    assert sources["p95_target_ms"] == Provenance("assumed", "kiosk.yaml")
    assert sources["memory_mb"].source == "twice the model's size"
    assert "Raspberry Pi 5" in sources["device_memory_mb"].source
    text = advice_text(advice)
    assert all(figure.field in text for figure in advice.figures)


def test_an_unknown_node_is_refused() -> None:
    with pytest.raises(Nonsense, match="node: there is no node 'gpu'; there are spot, reference"):
        planning.advise(replace(example("kiosk"), node="gpu"))


@pytest.mark.parametrize(
    ("field", "value"), [("rate_per_second", 0.0), ("device_utilisation", 3.0), ("p95_target_ms", -1.0), ("sites", 0)]
)
def test_nonsense_is_refused_from_python_too(field: str, value: float) -> None:
    with pytest.raises(Nonsense, match=f"^{field}: .* is not sensible; it must be "):
        varied(example("kiosk"), field, value)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("residency", "'may-leave', 'redacted-only' or 'stays'"),
        ("offline", "'not-needed', 'degraded' or 'required'"),
        ("billing", "'by-use' or 'always-on'"),
    ],
)
def test_a_word_that_is_not_known_is_refused_from_python_too(field: str, words: str) -> None:
    with pytest.raises(Nonsense, match=f"^{field}: 'x' is not known; it must be {words}$"):
        varied(example("kiosk"), field, "x")


def test_the_result_is_plain_values() -> None:
    plain = orjson.loads(orjson.dumps(planning.advise(example("cameras")).as_json()))
    assert plain["recommendation"] == "split"
    assert [row["criterion"] for row in plain["rows"]] == [
        *("latency", "model size", "throughput", "residency", "cost", "operations", "failure modes")
    ]
    assert plain["rows"][0]["scores"]["edge"]["reason"]
    assert plain["flips"][0]["becomes"] == "cloud"
    assert plain["cost"]["curves"]["rates_per_second"]
    assert {figure["provenance"]["origin"] for figure in plain["figures"]} == {"assumed"}


@pytest.mark.parametrize(
    ("field", "value"), [("local_audit", "maybe"), ("local_audit", 1), ("device_part", 7), ("name", 3), ("node", None)]
)
def test_what_is_of_another_kind_is_refused_from_python_too(field: str, value: object) -> None:
    with pytest.raises(Nonsense, match=f"^{field}: must be "):
        replace(example("kiosk"), **{field: value})  # type: ignore[arg-type]
