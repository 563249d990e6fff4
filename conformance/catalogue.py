"""All checks, in the order in which they are made and told."""

from __future__ import annotations

from conformance import binary, extensions, health, inference, manners, refusals
from conformance.check import Check

CHECKS: tuple[Check, ...] = (
    *health.CHECKS,
    *inference.CHECKS,
    *binary.CHECKS,
    *refusals.CHECKS,
    *manners.CHECKS,
    *extensions.CHECKS,
)
