"""What is drafted is a policy file that the gateway's own loader accepts, and that lets nothing leave that may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

import planning
from planning.policy_draft import NoPolicyFile, draft_policy
from planning.price_file import default_prices
from planning.workload import Workload
from policies.cloud_primary import CloudPrimary
from policies.loader import load
from policies.local_first import LocalFirst
from policies.split import Split
from router.deployment import Deployment
from router.plan import AcceptIf
from tests.unit.planning.workloads import example

PRICES = default_prices()


def drafted(workload: Workload) -> Deployment:
    return load(draft_policy(planning.advise(workload), PRICES).encode())


def test_the_kiosk_names_no_site_but_its_own() -> None:
    deployment = drafted(example("kiosk"))
    assert {entry.site for entry in deployment.backends.values()} == {"on-premises"}
    assert deployment.policies["advised"] == LocalFirst()
    assert deployment.sites("shopper") == deployment.sites("unclassified") == {"on-premises"}
    assert deployment.models["digits"].slo_p95_s == 0.1


def test_documents_leave_only_as_redacted() -> None:
    deployment = drafted(example("documents"))
    assert deployment.sites("customer") == deployment.sites("unclassified") == {"on-premises"}
    assert deployment.sites("customer-redacted") == {"cloud"}
    assert isinstance(deployment.policies[deployment.route("embed", "customer-redacted") or ""], Split)
    assert deployment.budgets["cloud"].usd_per_month == 1000


def test_cameras_settle_here_what_they_are_sure_of() -> None:
    deployment = drafted(example("cameras"))
    assert deployment.policies["advised"] == Split(AcceptIf(0.95))
    assert set(deployment.models["digits"].variants) == {"edge", "cloud"}


def test_a_model_that_fits_nowhere_else_is_in_the_cloud_alone() -> None:
    deployment = drafted(example("llm-13b"))
    assert deployment.policies["advised"] == CloudPrimary()
    assert set(deployment.backends) == {"cloud"}


def test_a_workload_for_the_cloud_keeps_its_fallback() -> None:
    far = replace(example("cameras"), device_part="", sites=2000)
    assert planning.advise(far).judgement.recommendation == "cloud"
    assert set(drafted(far).models["digits"].variants) == {"edge", "cloud"}


def test_where_raw_data_is_held_back_and_all_of_it_runs_here_nothing_may_go() -> None:
    held = replace(example("kiosk"), residency="redacted-only")
    deployment = drafted(held)
    assert set(deployment.backends) == {"edge"}
    assert set(deployment.residency) == {"shopper", "unclassified"}


def test_prices_are_turned_into_dollars() -> None:
    euros = replace(PRICES, currency="EUR", usd_per_unit=1.1)
    dear, plain = (
        load(draft_policy(planning.advise(example("kiosk"), prices), prices).encode()).backends["edge"].price
        for prices in (euros, PRICES)
    )
    assert dear.usd_per_inference == pytest.approx(plain.usd_per_inference * 1.1)


def test_what_is_missing_is_said() -> None:
    kiosk = example("kiosk")
    assert kiosk.serving is not None
    with pytest.raises(NoPolicyFile, match=r"no `serving` section"):
        drafted(replace(kiosk, serving=None))
    with pytest.raises(NoPolicyFile, match=r"serving.edge_file is missing, and the recommendation is edge"):
        drafted(replace(kiosk, serving=replace(kiosk.serving, edge_file="")))
    with pytest.raises(NoPolicyFile, match=r"contradicts itself: .*must work offline"):
        drafted(replace(example("llm-13b"), offline="required"))
    with pytest.raises(NoPolicyFile, match=r"models.digits.confidence"):
        drafted(replace(kiosk, serving=replace(kiosk.serving, confidence_output="sureness")))
