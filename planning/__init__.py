"""Planning: whether a workload belongs on the edge, in the cloud or split, and what a million inferences cost.

Needs no running gateway. `advise(workload)` and `tco(prices, demand)` are pure; `load_workload` and `load_prices` read
the content of the files that they take.

What is named here is imported when it is first used: the command line imports this package whatever it is asked.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planning.advice import Advice, advise
    from planning.ownership import Demand, Tco, tco
    from planning.price_file import load_prices
    from planning.prices import Prices
    from planning.ranges import Nonsense
    from planning.sections import UnusableFile
    from planning.workload import Workload
    from planning.workload_file import load_workload

__all__ = [
    "Advice",
    "Demand",
    "Nonsense",
    "Prices",
    "Tco",
    "UnusableFile",
    "Workload",
    "advise",
    "load_prices",
    "load_workload",
    "tco",
]

_HOMES = {
    "planning.advice": ("Advice", "advise"),
    "planning.ownership": ("Demand", "Tco", "tco"),
    "planning.price_file": ("load_prices",),
    "planning.prices": ("Prices",),
    "planning.ranges": ("Nonsense",),
    "planning.sections": ("UnusableFile",),
    "planning.workload": ("Workload",),
    "planning.workload_file": ("load_workload",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
