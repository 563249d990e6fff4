"""Names that several sections use."""

from __future__ import annotations

from planning.advice import Advice
from planning.rubric import Choice


def ruled_out(advice: Advice) -> frozenset[Choice]:
    """The choices that a constraint rules out."""
    return frozenset(constraint.excludes for constraint in advice.judgement.constraints)


def in_words(field: str) -> str:
    """A field's name as people write it."""
    return field.replace("_", " ")
