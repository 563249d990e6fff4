"""The page: every section, nothing from elsewhere, nothing of a user's taken for markup, the advice's own figures."""

from __future__ import annotations

import re

import pytest
import yaml

import planning
from planning.policy_draft import draft_policy
from planning.price_file import default_prices
from planning.report.blocks import Paragraph
from planning.report.content import make_report
from planning.report.page import html
from planning.rubric import CHOICES
from planning.wording import money
from policies.loader import load
from tests.unit.planning.report.decisions import hostile, opened, worked
from tests.unit.planning.report.pages import Page
from tests.unit.planning.test_advice import EXPECTED
from tests.unit.planning.workloads import slow_but_best

SECTIONS = ["answer", "flips", "constraints", "rubric", "costs"]
SECTIONS += ["sensitivity", "interval", "latencies", "policy", "figures"]


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_it_is_whole_and_needs_nothing_else(name: str) -> None:
    text, page = opened(name)
    assert page.sections == SECTIONS
    assert page.words["answer"].lower().count(EXPECTED[name][0]) >= 1
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe", "object", "image", "foreignobject"} & set(tags)
    assert not [found for _, attributes in page.tags for found in attributes if found.startswith("on")]
    # An address may be written in the policy file; nothing leads to one.
    assert all((value or "").startswith("#") for _, found in page.tags for key, value in found.items() if "href" in key)
    assert "http" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert not re.search(r"@import|src=", text)


def test_a_target_that_the_recommendation_misses_is_said_with_it() -> None:
    advice = planning.advise(slow_but_best())
    report = make_report(advice, "")
    sentence = "But edge has no point for latency: P95 of 900 ms is 300% of the target."
    assert sentence in Page(html(report)).words["answer"]
    assert Paragraph(sentence) in report.sections[0].in_short
    assert "no point" not in opened("kiosk")[1].words["answer"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_it_can_be_read_without_eyes(name: str) -> None:
    _, page = opened(name)
    assert ("html", {"lang": "en"}) in page.tags
    assert [tag for tag, _ in page.tags].count("h1") == 1
    pictures = [found for tag, found in page.tags if tag == "svg"]
    assert len(pictures) == 4
    assert all(found["role"] == "img" and len(found["aria-label"] or "") > 60 for found in pictures)
    for table in (table for tables in page.tables.values() for table in tables):
        assert table.caption
        assert all(table.heads)
        assert table.rows
        assert all(len(row) == len(table.heads) for row in table.rows)
        assert table.scopes == ["col"] * len(table.heads) + ["row"] * len(table.rows)
    identifiers = [found["id"] for _, found in page.tags if found.get("id")]
    assert len(identifiers) == len(set(identifiers))
    pointed = {value[1:] for _, found in page.tags for key, value in found.items() if "href" in key and value}
    assert pointed <= set(identifiers)


def test_nothing_of_a_users_file_becomes_markup() -> None:
    text = html(hostile())
    page = Page(text)
    assert page.sections == SECTIONS
    assert {tag for tag, _ in page.tags} & {"script", "img"} == set()
    assert "<script" not in text.lower()
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "</title></code><script>" in page.words["figures"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_its_figures_are_those_of_the_advice(name: str) -> None:
    advice, _ = worked(name)
    _, page = opened(name)
    judgement, cost = advice.judgement, advice.cost
    (rubric,) = page.tables["rubric"]
    for row, read in zip(judgement.rows, rubric.rows[:-1], strict=True):
        assert read[:3] == [row.criterion, row.value, row.threshold]
        assert read[3:] == [f"{row.scores[choice].points}: {row.scores[choice].reason}" for choice in CHOICES]
    assert [int(cell) for cell in rubric.rows[-1][3:]] == [judgement.totals[choice] for choice in CHOICES]
    choices, machines = page.tables["costs"]
    for choice, read in zip(CHOICES, choices.rows, strict=True):
        assert number(read[1]) == pytest.approx(judgement.per_million[choice], abs=0.005)
        assert number(read[2]) == pytest.approx(judgement.per_month[choice], abs=0.005)
    for option, read in zip(cost.options, machines.rows, strict=True):
        assert read[0] == option.machine
        assert number(read[2]) == pytest.approx(option.per_month, abs=0.005)
        parts = {part.rpartition(" ")[0]: number(part.rpartition(" ")[2]) for part in read[4].split(", ")}
        assert parts == pytest.approx(dict(option.parts), abs=0.005)
    (swings,) = page.tables["sensitivity"]
    for swing, read in zip(cost.tornado, swings.rows, strict=False):
        assert [number(cell) for cell in read[3:5]] == pytest.approx(list(swing.difference), abs=0.005)
    interval = page.tables["interval"][0].rows[0][1:]
    assert interval == [money(amount) for amount in cost.spread.edge_per_million.values()]
    assert [row[0] for row in page.tables.get("flips", [])[0].rows] == [
        flip.field.replace("_", " ") for flip in advice.flips
    ]
    assert len(page.tables["figures"][0].rows) == len(advice.figures)
    assert {row[3] for row in page.tables["figures"][0].rows} <= {"measured", "assumed"}


def test_the_policy_in_it_is_the_one_that_is_written() -> None:
    advice, _ = worked("cameras")
    listing = opened("cameras")[1].listing
    assert listing == draft_policy(advice, default_prices()).rstrip("\n")
    assert yaml.safe_load(listing)["version"] == 1
    load(listing.encode(), "the report")


def test_without_a_policy_or_a_benchmark_it_says_so() -> None:
    advice, _ = worked("cameras")
    page = Page(html(make_report(advice, "", "The workload has no `serving` section.")))
    assert "has no `serving` section" in page.words["policy"]
    assert "No benchmark was given" in page.words["latencies"]


def test_latencies_count_failures_among_all() -> None:
    _, page = opened("cameras")
    local, near, far = page.tables["latencies"][0].rows
    assert local[1:8] == ["local", "100", "0", "24.9", "29.4", "29.8", "yes"]
    assert near[1:8] == ["cloud", "100", "10", "109", "never", "never", "no"]
    assert far[1:8] == ["cloud", "10", "10", "never", "never", "never", "no"]


def test_the_same_inputs_make_the_same_page() -> None:
    assert html(worked("cameras")[1]) == opened("cameras")[0]
