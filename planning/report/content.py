"""What a decision's report says, in order: the answer, what would change it, why, what it costs, what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from planning.advice import Advice
from planning.report.blocks import Block, Listing, Paragraph, Report, Section, Table
from planning.report.costs import costs, interval, sensitivity
from planning.report.latencies import Run
from planning.report.measured import latencies
from planning.report.names import in_words, ruled_out
from planning.rubric import BEST, CHOICES
from planning.wording import how_far, money, shortfalls, shown, verdict

LIBRARIES = ("hybrid-router", "numpy", "matplotlib")


def make_report(advice: Advice, policy: str, no_policy: str = "", runs: Sequence[Run] = ()) -> Report:
    """Puts a report together.

    Args:
        advice: The decision.
        policy: The policy file that carries it out; empty where there is none.
        no_policy: Why there is none.
        runs: Of benchmarks, for the latencies.
    """
    return Report(
        f"Where should “{advice.workload.name}” run: on the edge, in the cloud, or split?",
        (
            _answer(advice),
            _flips(advice),
            _constraints(advice),
            _rubric(advice),
            costs(advice),
            sensitivity(advice),
            interval(advice),
            latencies(advice, runs),
            Section(
                "policy",
                "The policy file that carries it out",
                (Listing(policy.rstrip("\n")),) if policy else (Paragraph(no_policy),),
            ),
            _figures(advice),
        ),
        f"Made by {', '.join(f'{name} {version(name)}' for name in LIBRARIES)}. "
        f"Prices of {advice.cost.dated}, in {advice.cost.currency}. "
        f"{advice.cost.spread.samples:,} draws with seed {advice.cost.spread.seed}. "
        "The same inputs make the same file.",
    )


def _answer(advice: Advice) -> Section:
    judgement, workload = advice.judgement, advice.workload
    words = verdict(advice)
    blocks: list[Block] = [Paragraph(f"{words[0].upper()}{words[1:]}.", lead=True)]
    blocks += [Paragraph(f"{shortfall[0].upper()}{shortfall[1:]}.") for shortfall in shortfalls(judgement)]
    if judgement.recommendation is not None:
        choice = judgement.recommendation
        others = " ".join(
            f"{other.capitalize()} would cost {money(judgement.per_million[other])}"
            + (", but is ruled out." if other in ruled_out(advice) else ".")
            for other in CHOICES
            if other != choice
        )
        blocks.append(
            Paragraph(
                f"At {shown(workload.rate_per_second)} inferences a second a million of them cost "
                f"{money(judgement.per_million[choice])} {advice.cost.currency}, a month "
                f"{judgement.per_month[choice]:,.2f} {advice.cost.currency}. {others}"
            )
        )
    measured = sum(figure.provenance.origin == "measured" for figure in advice.figures)
    blocks.append(
        Paragraph(
            f"It is decided by {judgement.decided_by}. Of {len(advice.figures)} figures of the workload "
            f"{measured} {'was' if measured == 1 else 'were'} measured and {len(advice.figures) - measured} assumed; "
            "all prices are assumed."
        )
    )
    return Section("answer", "Recommendation", tuple(blocks), tuple(blocks))


def _flips(advice: Advice) -> Section:
    heading = "What would change it"
    if not advice.flips:
        nothing = Paragraph("No single input changes this, however far it moves.")
        return Section("flips", heading, (nothing,), (nothing,))
    table = Table(
        "One input alone, all others as they are; the nearest first",
        ("input", "now", "at", "how far", "it becomes"),
        tuple(
            (
                in_words(flip.field),
                shown(flip.now),
                shown(flip.at),
                how_far(flip).strip(" ()"),
                flip.becomes or "nothing left",
            )
            for flip in advice.flips
        ),
        (3, 2, 2, 2.5, 2),
        frozenset({1, 2}),
    )
    nearest = advice.flips[0]
    short = Paragraph(
        f"The nearest is {in_words(nearest.field)}: {shown(nearest.at)} instead of {shown(nearest.now)} "
        f"would make it {nearest.becomes or 'a contradiction'}."
    )
    return Section("flips", heading, (table,), (short,))


def _constraints(advice: Advice) -> Section:
    found = advice.judgement.constraints
    if not found:
        return Section("constraints", "Hard constraints", (Paragraph("None is broken: every choice is open."),))
    table = Table(
        "What decides alone, whatever the points",
        ("constraint", "rules out", "because"),
        tuple((constraint.name, constraint.excludes, constraint.reason) for constraint in found),
        (2, 1.2, 6),
    )
    return Section("constraints", "Hard constraints", (table,))


def _rubric(advice: Advice) -> Section:
    judgement, out = advice.judgement, ruled_out(advice)
    heads = tuple(
        f"{choice} (recommended)"
        if choice == judgement.recommendation
        else f"{choice} (ruled out)"
        if choice in out
        else choice
        for choice in CHOICES
    )
    total = f"total (of {BEST * len(judgement.rows)})"
    table = Table(
        "0 to 3 points: 3 is made for it, 2 fine, 1 only just, 0 not",
        ("criterion", "here", "threshold", *heads),
        (
            *(
                (
                    row.criterion,
                    row.value,
                    row.threshold,
                    *(f"{row.scores[choice].points}: {row.scores[choice].reason}" for choice in CHOICES),
                )
                for row in judgement.rows
            ),
            (total, "", "", *(f"{judgement.totals[choice]}" for choice in CHOICES)),
        ),
        (1.3, 1.7, 2.2, 2, 2, 2),
    )
    short = Table(
        "Points of 3",
        ("criterion", *heads),
        (
            *((row.criterion, *(f"{row.scores[choice].points}" for choice in CHOICES)) for row in judgement.rows),
            (total, *(f"{judgement.totals[choice]}" for choice in CHOICES)),
        ),
        (2, 2, 2, 2),
        frozenset({1, 2, 3}),
    )
    return Section("rubric", "The seven criteria", (table,), (short,))


def _figures(advice: Advice) -> Section:
    table = Table(
        "Each figure of the workload, and whether it was measured or only assumed",
        ("figure", "value", "unit", "origin", "source"),
        tuple(
            (
                in_words(figure.field),
                shown(figure.value),
                figure.unit,
                figure.provenance.origin,
                figure.provenance.source,
            )
            for figure in advice.figures
        ),
        (2.4, 1.2, 2.6, 1.2, 4),
        frozenset({1}),
    )
    prices = Paragraph(
        f"Prices are those of {advice.cost.dated}, all assumed; their sources stand with the machines above. "
        f"The device is a {advice.cost.device_name}."
    )
    return Section("figures", "What it rests on", (table, prices))
