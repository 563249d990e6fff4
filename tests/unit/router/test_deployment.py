"""Which policy serves what, and where data may go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.deployment import BackendEntry, Deployment, RouteRule
from router.pricing import NodePrice

names = st.sampled_from(("a", "b", "*"))
rules = st.lists(st.builds(RouteRule, names, names, st.sampled_from(("p", "q", "r"))), max_size=5)


def deployment(
    routes: tuple[RouteRule, ...] = (), residency: dict[str, frozenset[str] | None] | None = None
) -> Deployment:
    price = NodePrice(1, 1)
    backends = {site: BackendEntry("k", site, price, None) for site in ("on-premises", "cloud")}
    return Deployment(backends, {}, {}, routes, residency or {})


@given(rules, st.sampled_from(("a", "b", "c")), st.sampled_from(("a", "b", "c")))
def test_the_first_rule_that_matches_wins(routes: list[RouteRule], model: str, data_class: str) -> None:
    matching = [r.policy for r in routes if r.model in ("*", model) and r.data_class in ("*", data_class)]
    assert deployment(tuple(routes)).route(model, data_class) == (matching[0] if matching else None)


def test_data_may_go_everywhere_unless_the_file_says_otherwise() -> None:
    made = deployment(residency={"phi": frozenset({"on-premises"}), "open": None, "nowhere": frozenset()})
    assert made.data_classes() == ("phi", "open", "nowhere", "unclassified")
    assert made.sites("phi") == {"on-premises"}
    assert made.sites("nowhere") == frozenset()
    assert made.sites("open") == made.sites("unclassified") == {"on-premises", "cloud"}


def test_unclassified_data_can_be_restricted_too() -> None:
    made = deployment(residency={"unclassified": frozenset({"on-premises"})})
    assert made.data_classes() == ("unclassified",)
    assert made.sites("unclassified") == {"on-premises"}
