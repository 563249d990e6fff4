"""Planning: whether a workload belongs on the edge, in the cloud or split, and what a million inferences cost.

Needs no running gateway. `advise(workload)` and `tco(prices, demand)` are pure; `load_workload` and `load_prices` read
the files that they take.
"""

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
