"""Workload and price files: read whole or not at all; nonsense is refused with its line, field and sensible range."""

from __future__ import annotations

import contextlib
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from planning.price_file import DEFAULT_PRICES, load_prices
from planning.ranges import RANGES, Nonsense, check_word, checked
from planning.sections import UnusableFile
from planning.workload import RESIDENCIES
from planning.workload_file import load_workload
from tests.unit.planning.workloads import EXAMPLES

KIOSK = (EXAMPLES / "kiosk.yaml").read_text()
PRICES = DEFAULT_PRICES.read_text()


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("change", "field", "sensible"),
    [
        (("rate_per_second: 4", "rate_per_second: 0"), "traffic.rate_per_second", "above 0 and up to 1,000,000"),
        (("p95_target_ms: 100", "p95_target_ms: -100"), "latency.p95_target_ms", "above 0 and up to 600,000 ms"),
        (("sites: 40", "sites: 40, device_utilisation: 3.0"), "traffic.device_utilisation", "up to 1 (a share: 0.6 is"),
        (("sites: 40", "sites: 0"), "traffic.sites", "a whole number from 1 to 1,000,000"),
        (("size_mb: 15", "size_mb: .nan"), "model.size_mb", "above 0 and up to 1,000,000 MB"),
        (
            ("sites: 40", f"sites: {'9' * 400}"),
            "traffic.sites",
            "999... is not sensible; it must be a whole number from 1",
        ),
        (("size_mb: 15", "size_mb: heavy"), "model.size_mb", "above 0 and up to 1,000,000 MB"),
        (("residency: stays", "residency: maybe"), "compliance.residency", "'may-leave', 'redacted-only' or 'stays'"),
        (("size_mb: 15", "size: 15"), "model.size", "unknown key"),
        (("residency: stays", "local_audit: true"), "compliance.residency", "missing"),
    ],
)
def test_nonsense_in_a_workload(change: tuple[str, str], field: str, sensible: str) -> None:
    text = KIOSK.replace(*change)
    assert text != KIOSK
    with pytest.raises(UnusableFile) as refused:
        load_workload(text.encode(), "kiosk.yaml")
    (sentence,) = (line for line in str(refused.value).splitlines() if f" {field}: " in line)
    assert sensible in sentence
    section, _, key = field.partition(".")
    assert sentence.startswith(f"kiosk.yaml, line {line_of(text, f'{section}:')}: "), key


@pytest.mark.parametrize(
    ("change", "field", "sensible"),
    [
        (("per_kwh: 0.12", "per_kwh: -0.12"), "electricity.per_kwh", "must be from 0 to 10 for a kilowatt-hour"),
        (("likely: 200, low: 180", "likely: 200, low: 250"), "device.hardware", "low, likely and high"),
        (("currency: USD", "currency: dollars"), "currency", "pattern"),
        (("dated: 2026-11-24", "dated: lately"), "dated", "date"),
        (("spread: 0.25", "spread: 25"), "spread", "from 0 to 0.99"),
        (("per_hour: {likely: 1.5", "per_hour: {likely: -1.5"), "nodes.spot.per_hour", "low, likely and high"),
        (
            ("per_hour: {likely: 1.5, low: 1.2", "per_hour: {likely: 1.5, low: -1.2"),
            "nodes.spot.per_hour",
            "from 0 to 1,000",
        ),
    ],
)
def test_nonsense_in_a_price_file(change: tuple[str, str], field: str, sensible: str) -> None:
    text = PRICES.replace(*change)
    assert text != PRICES
    with pytest.raises(UnusableFile) as refused:
        load_prices(text.encode(), "prices.yaml")
    assert re.search(rf"prices.yaml, line \d+: {re.escape(field)}: .*{re.escape(sensible)}", str(refused.value))


def test_every_mistake_is_named_at_once() -> None:
    text = KIOSK.replace("rate_per_second: 4", "rate_per_second: 0").replace("size_mb: 15", "size_mb: 0")
    with pytest.raises(UnusableFile) as refused:
        load_workload(text.encode())
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("content", [b"", b"\xff", b"- 1", b"version: 1\nversion: 1", b"a: &a [*a]", b"{"])
def test_what_is_no_mapping_is_refused(content: bytes) -> None:
    for load in (load_workload, load_prices):
        with pytest.raises(UnusableFile):
            load(content)


scraps = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_whatever_a_field_holds_it_is_read_or_refused(data: st.DataObject) -> None:
    content = yaml.safe_load(KIOSK)
    section = data.draw(st.sampled_from([key for key in content if key != "version"]))
    if isinstance(content[section], dict):
        content[section][data.draw(st.sampled_from(sorted(content[section])))] = data.draw(scraps)
    else:
        content[section] = data.draw(scraps)
    with contextlib.suppress(UnusableFile):
        load_workload(yaml.safe_dump(content).encode())


@given(st.sampled_from(sorted(RANGES)), st.floats())
def test_what_passes_is_within_its_range(field: str, value: float) -> None:
    sensible = RANGES[field]
    if value in sensible:
        assert sensible.low <= checked(field, value) <= sensible.high
    else:
        with pytest.raises(Nonsense, match=f"^{field}: .*{re.escape(str(sensible))}"):
            checked(field, value)


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), 10**5000, Fraction(10**400), Fraction(10**5000), "3", "", None, True, [3], 1j, Decimal(3)],
    ids=type,
)
def test_what_is_no_number_is_refused_as_any_other_nonsense(value: Any) -> None:
    with pytest.raises(Nonsense, match=r"^sites: .* is not sensible; it must be a whole number from 1 to 1,000,000 "):
        checked("sites", value)


@pytest.mark.parametrize("value", [3, 3.0, Fraction(3), np.int64(3), np.float32(3)], ids=type)
def test_a_number_is_one_whatever_its_type(value: Any) -> None:
    assert checked("sites", value) == 3


@pytest.mark.parametrize("value", ["x", "", None, 3, ["stays"], "stay" * 1000])
def test_a_word_that_is_not_known_is_refused_and_the_known_ones_are_named(value: Any) -> None:
    check_word("residency", "stays", RESIDENCIES)
    with pytest.raises(Nonsense) as refused:
        check_word("residency", value, RESIDENCIES)
    sentence = str(refused.value)
    assert sentence.startswith("residency: ")
    assert sentence.endswith(" is not known; it must be 'may-leave', 'redacted-only' or 'stays'")
    assert len(sentence) < 150
