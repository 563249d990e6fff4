"""The report of a decision as architects ask for it, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from planning.bench.plan import Network
from planning.bench.results import CellResults, dump_results
from tests.gateway_process import ROOT
from tests.integration.test_cli import run, said
from tests.unit.planning.benches import a_round, results
from tests.unit.planning.report.pages import Page

CAMERAS = ROOT / "planning/examples/cameras.yaml"
STARTS = {".html": b"<!DOCTYPE html>", ".pdf": b"%PDF-", ".png": b"\x89PNG\r\n\x1a\n"}


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A result of a benchmark, with a failure."""
    measured = a_round([30_000, 20_000], sent=3, errors={"http-503": 1})
    file = tmp_path / "result.json"
    file.write_bytes(
        dump_results(results([CellResults("edge & cloud", Network(50.0, 10.0), "bursty", 5.0, (measured,))]))
    )
    return file


def test_it_is_written_as_each_kind_of_file(bench: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"decision{suffix}" for suffix in STARTS]
    text = said(run("advise", CAMERAS, "--bench", bench, *(word for file in files for word in ("--report", file))))
    assert text.startswith("camera fleet: split, 3 points ahead of cloud")
    assert text.endswith("".join(f"The report is {file}.\n" for file in files))
    for file in files:
        assert file.read_bytes().startswith(STARTS[file.suffix])
    page = Page(files[0].read_text())
    (row,) = page.tables["latencies"][0].rows
    assert row[:4] == ["bursty, 50 ms round trip, 10 Mbit/s up, result.json", "edge & cloud", "3", "1"]
    assert "3 points ahead of cloud" in page.words["answer"]


def test_a_contradiction_and_a_workload_without_tensors_have_a_report_too(tmp_path: Path) -> None:
    workload, report = tmp_path / "workload.yaml", tmp_path / "decision.html"
    text = (ROOT / "planning/examples/llm-13b.yaml").read_text()
    workload.write_text(text.replace("may-leave", "stays"))
    said(run("advise", workload, "--report", report))
    page = Page(report.read_text())
    assert "Nothing is left" in page.words["answer"]
    assert "contradicts itself" in page.words["policy"]
    workload.write_text(text[: text.index("serving:")])
    said(run("advise", workload, "--report", report))
    assert "has no `serving` section" in Page(report.read_text()).words["policy"]


def test_what_cannot_be_reported_is_said_before_anything_is_measured(bench: Path, tmp_path: Path) -> None:
    measure = ("--measure", "grpc://127.0.0.1:9/digits")
    assert "must end in .html, .pdf, .png" in said(run("advise", CAMERAS, *measure, "--report", "decision.docx"), 2)
    assert "name its file with --report" in said(run("advise", CAMERAS, *measure, "--bench", bench), 2)
    report = ("--report", tmp_path / "decision.html")
    for content, sentence in (
        ("[]", "holds no whole results of a benchmark"),
        ('{"format": "other/7", "machine": {}, "cells": []}', "is not of the form hybrid-router-bench/1"),
        (dump_results(results([])).decode(), "holds no latencies"),
    ):
        bench.write_text(content)
        assert sentence in said(run("advise", CAMERAS, *report, *measure, "--bench", bench), 1)
    ended = run("advise", CAMERAS, "--report", tmp_path / "no/where.html")
    assert (ended.returncode, f"{tmp_path / 'no/where.html'} cannot be written" in ended.stderr) == (1, True)
    ended = run("advise", CAMERAS, "--policy-out", "/dev/full")
    assert (ended.returncode, "/dev/full cannot be written: No space left" in ended.stderr) == (1, True)
