"""PDF and PNG are such files, the same each time, and nothing on a sheet is cut."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from planning.report import sheets
from planning.report.blocks import Listing, Paragraph, Report, Section, Table
from planning.report.files import rendered
from tests.unit.planning.report.decisions import hostile, worked


def test_a_pdf_is_one_and_the_same_each_time() -> None:
    report = worked("cameras")[1]
    content = rendered(report, ".pdf")
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type /Page\b", content)) >= 4
    assert b"CreationDate" not in content
    assert content == rendered(report, ".pdf")


def test_a_png_is_one_and_not_empty() -> None:
    report = worked("kiosk")[1]
    content = rendered(report, ".png")
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    assert picture.height > picture.width > 800
    least, greatest = picture.convert("L").getextrema()
    assert (least < 40, greatest) == (True, 255)  # type: ignore[operator]
    assert content == rendered(report, ".png")


@pytest.mark.parametrize("suffix", [".pdf", ".png"])
def test_hostile_words_are_drawn_as_they_are(suffix: str) -> None:
    assert rendered(hostile(), suffix)


def test_no_strip_leaves_its_page_and_heads_stand_on_each() -> None:
    rows = tuple((f"row {number}", "a long sentence that has to be folded " * (number % 5)) for number in range(120))
    table = Table("many rows", ("name", "text"), rows, (1, 3))
    sections = (
        Section("one", "One", (Paragraph("introduces"), table)),
        Section("two", "Two", (Listing("line\n" * 90),)),
    )
    report = Report("Q?", sections, "made")
    blocks = ((section.heading, section.blocks) for section in sections)
    pages = list(sheets._paginated(list(sheets._strips(report, blocks))))
    assert len(pages) > 3
    room = sheets.PAGE_HEIGHT - 2 * sheets.MARGIN
    assert all(sum(strip.height for strip in page) <= room for page in pages)
    text = [[line for strip in page for words in strip.words for line in words.lines] for page in pages]
    assert [line for lines in text for line in lines if line.startswith("row ")] == [name for name, _ in rows]
    for lines in text:
        if any(line.startswith("row ") for line in lines):
            assert "name" in lines[:6]
    for page in pages:
        assert not page[-1].with_next
