"""What policies do for a device that is too warm or too weak: others first, and nothing that no answer depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest

from policies.reasons import GRACE, misses
from router.plan import Attempt
from router.snapshot import Snapshot, TargetView
from router.types import Facts


def relieved(order: Sequence[TargetView], facts: Facts, snapshot: Snapshot) -> tuple[list[TargetView], str]:
    """Puts those that run on a strained device behind the others that may answer in time.

    Nobody is left out, and an order in which nobody else is up, permitted and within the SLO stays as it is: an answer
    by a hot device is better than a late one, or none.

    Args:
        order: The targets as the policy would have them, all of them up.
        facts: What is known of the request.
        snapshot: What is known of the world.

    Returns:
        The order, and what to add to its reason if another target comes first now; else nothing.
    """
    if not any(target.strain.shifts for target in order):
        return list(order), ""
    slo_s, incumbent = snapshot.models[facts.model].slo_p95_s, snapshot.incumbents.get(facts)

    def helps(target: TargetView) -> bool:
        limit_s = slo_s * (GRACE if target.backend == incumbent else 1.0)
        return not (target.strain.shifts or misses(target, facts, limit_s))

    others = [target for target in order if helps(target)]
    if not others:
        return list(order), ""
    changed = [*others, *(target for target in order if target not in others)]
    if changed[0] is order[0] or not order[0].strain.shifts:
        return changed, ""
    return changed, f"; {order[0].backend} is spared, since the device is {order[0].strain.value}"


def without_extras(attempts: Iterable[Attempt], order: Sequence[TargetView]) -> tuple[Attempt, ...]:
    """The attempts on these targets, without the hedges that would start work on a device that is to be spared."""
    return tuple(
        replace(attempt, hedge_after=None) if following is not None and following.strain.spares else attempt
        for attempt, following in zip_longest(attempts, order[1:])
    )
