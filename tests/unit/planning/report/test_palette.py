"""Colours stay apart for every eye, and text stays readable."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from planning.report.page import STYLE
from planning.report.palette import INK, LOOKS, QUIET

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
EYES = {
    "trichromat": np.eye(3),
    "protanope": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranope": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanope": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TOLD_APART = 12.0
"""CIE76; about 2 can just be seen side by side."""


def linear(colour: str) -> NDArray[np.float64]:
    coded = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    share = to_xyz @ np.clip(light, 0, 1) / np.array([0.9505, 1.0, 1.089])
    root = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def contrast(text: str, ground: str = "#ffffff") -> float:
    light, dark = sorted(
        (float(linear(colour) @ np.array([0.2126, 0.7152, 0.0722])) for colour in (text, ground)), reverse=True
    )
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("eye", sorted(EYES))
def test_every_eye_tells_the_lines_apart(eye: str) -> None:
    seen = {look.colour: lab(EYES[eye] @ linear(look.colour)) for look in LOOKS}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= TOLD_APART, (one, other)


def test_without_colour_the_lines_are_told_apart_too() -> None:
    for part in ("dashes", "marker", "hatch"):
        assert len({getattr(look, part) for look in LOOKS}) == len(LOOKS)


def test_text_can_be_read() -> None:
    for colour in (INK, QUIET, *(look.text for look in LOOKS)):
        assert contrast(colour) >= 4.5, colour
    for colour in (look.colour for look in LOOKS[:3]):
        assert contrast(colour) >= 3, colour  # what is drawn, as WCAG asks of graphics
    assert f"color: {QUIET}" in STYLE
    assert contrast(INK, "#f4f4f4") >= 4.5
