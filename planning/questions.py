"""Asks for a workload, one figure at a time. What is asked in vain is assumed, and marked so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from planning.assumptions import completed, make_workload
from planning.options import sensible
from planning.total_cost import BILLINGS
from planning.workload import OFFLINES, RESIDENCIES, Workload

ASKED: Final[Mapping[str, tuple[str, float | None]]] = {
    "p95_target_ms": ("How fast must 95 % of the answers be, end to end, in ms?", 100),
    "size_mb": ("How large is the model, quantised as you would deploy it, in MB?", 15),
    "parameters_billion": ("How many billion parameters, if it is a language model (0 if not)?", None),
    "edge_p95_ms": ("What does an answer of the device take (P95), in ms?", None),
    "device_per_second": ("How many inferences a second does one device do?", None),
    "cloud_compute_p95_ms": ("What does the cloud's model take (P95), network apart, in ms?", None),
    "round_trip_ms": ("How long is the round trip to the cloud, in ms?", None),
    "rate_per_second": ("How many inferences a second, all sites together, averaged over the month?", 1),
    "concurrent": ("How many requests are under way at once at the peak?", None),
    "sites": ("How many sites need a device?", None),
    "payload_bytes": ("How many bytes would each inference send to the cloud?", 100_000),
    "updates_per_month": ("How often a month does the model change?", None),
}
"""The questions and, where nothing is assumed otherwise, what is suggested."""

SPLIT: Final[Mapping[str, str]] = {
    "device_part_p95_ms": "What does that part take on the device (P95), in ms?",
    "device_part_per_second": "How many a second does one device do of it?",
    "forwarded_share": "Which share of the inferences still goes to the cloud (0.05 is 5 %)?",
    "forwarded_bytes": "How many bytes does it then send of each?",
}


def ask_for_workload() -> Workload:
    """Prompts on standard error, so that standard output stays the result's.

    Raises:
        click.Abort: The answers ended early.
    """
    click.echo("Enter takes what stands in brackets; it is then assumed, and the result says so.\n", err=True)
    name = click.prompt("What is the workload called?", default="my workload", err=True)
    given: dict[str, Any] = {}
    suggested = {field: suggestion for field, (_, suggestion) in ASKED.items() if suggestion is not None}
    for field, (question, suggestion) in ASKED.items():
        default = completed(suggested | given)[field]
        answer = _number(field, question, default)
        if answer is not None:
            given[field] = answer
        elif suggestion is not None:
            given[field] = suggestion
    given["residency"] = _choice("May its data leave the site?", RESIDENCIES)
    given["local_audit"] = click.confirm("Must the site audit every decision by itself?", default=False, err=True)
    given["offline"] = _choice("What is needed while the WAN is down?", OFFLINES)
    given |= {"node": "reference", "billing": _choice("How are nodes paid?", BILLINGS)}
    part = click.prompt(
        "Which part of the work could the device do alone, such as redaction or filtering (empty: none)?",
        default="",
        show_default=False,
        err=True,
    ).strip()
    if part:
        given |= {"device_part": part}
        for field, question in SPLIT.items():
            answer = _number(field, question, completed(given)[field])
            if answer is not None:
                given[field] = answer
    return make_workload(name, given, "answered when asked")


def _number(field: str, question: str, default: float) -> float | None:
    """None where what stands in brackets was taken."""
    shown = f"{float(f'{default:.6g}'):.15g}"
    answer: float = click.prompt(question, default=shown, value_proc=sensible(field), err=True)
    return None if answer == float(shown) else answer


def _choice(question: str, words: tuple[str, ...]) -> str:
    answer: str = click.prompt(question, default=words[0], type=click.Choice(words), err=True)
    return answer
