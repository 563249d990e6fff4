"""Writes the policy file that carries a recommendation out.

Invariants:

- What is written is what the gateway's own loader accepts: it is loaded before it is returned.
- Where raw data may not leave, its class and requests that name no class are held to the premises; where nothing may
  leave at all, the file names no other site.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from planning.advice import Advice
from planning.prices import Prices
from planning.rubric import Choice, fits_device
from planning.units import INFERENCE, MONTH, SECOND
from planning.workload import Serving, Workload
from policies.document import PolicyFileError
from policies.loader import load
from router.model import TensorSpec
from router.types import ON_PREMISES, UNCLASSIFIED

EDGE, CLOUD, POLICY = "edge", "cloud", "advised"
RAW_POLICY = "on-premises-only"
DEADLINE_OVER_TARGET = 10
LONGEST_DEADLINE_MS = 600_000


class NoPolicyFile(Exception):
    """No policy file can be written; the message says why and what to do."""


def draft_policy(advice: Advice, prices: Prices) -> str:
    """The policy file's text.

    Args:
        advice: What was recommended.
        prices: The prices that it was judged by.

    Raises:
        NoPolicyFile: Nothing is recommended, or the workload does not say enough of its model.
    """
    choice, serving = advice.judgement.recommendation, advice.workload.serving
    if choice is None:
        reasons = "; ".join(constraint.reason for constraint in advice.judgement.constraints)
        raise NoPolicyFile(f"There is no policy for a workload that contradicts itself: {reasons}.")
    if serving is None:
        raise NoPolicyFile("The workload has no `serving` section: the policy file needs the model's tensors.")
    variants = _variants(advice.workload, serving, choice)
    content = {
        "version": 1,
        "backends": {name: _backend(name, advice.workload, serving, prices) for name in variants},
        "models": {serving.model: _model(advice.workload, serving, variants)},
        "policies": _policies(advice.workload, serving, choice),
        **_routes(advice.workload, serving, choice),
    }
    if serving.budget_per_month is not None and CLOUD in variants:
        limit = round(serving.budget_per_month * prices.usd_per_unit, 2)
        content["budgets"] = {CLOUD: {"usd_per_month": limit, "when_spent": "local-only"}}
    text = _header(advice) + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    try:
        load(text.encode(), "the drafted policy file")
    except PolicyFileError as error:
        raise NoPolicyFile(f"The `serving` section does not make a policy file:\n{error}") from None
    return text


def _variants(workload: Workload, serving: Serving, choice: Choice) -> dict[str, dict[str, Any]]:
    """The model on each backend. What may not be used is not named."""
    variants: dict[str, dict[str, Any]] = {}
    if serving.edge_file and (choice != "cloud" or fits_device(workload)):
        variants[EDGE] = {"file": serving.edge_file}
    leaves = workload.residency == "may-leave" or (workload.residency == "redacted-only" and choice == "split")
    if serving.cloud is not None and leaves:
        variants[CLOUD] = {"name": serving.cloud.name}
        if serving.cloud.version:
            variants[CLOUD]["version"] = serving.cloud.version
        if serving.cloud.encoded_image:
            variants[CLOUD]["encoded_image"] = {"name": serving.cloud.encoded_image}
    needed = {"edge": EDGE, "cloud": CLOUD, "split": CLOUD}[choice]
    if needed not in variants:
        what = "edge_file" if needed == EDGE else "cloud"
        raise NoPolicyFile(f"serving.{what} is missing, and the recommendation is {choice}.")
    return variants


def device_price(prices: Prices, inferences_per_month: float) -> dict[str, Any]:
    """A device's price as a policy file has it, in dollars."""
    device, dollars = prices.device, prices.usd_per_unit
    return {
        "hardware_usd": device.hardware.likely * (1 + device.spares.likely) * dollars,
        "lifetime_years": device.lifetime_years.likely,
        "watts": device.watts.likely,
        "usd_per_kwh": prices.per_kwh.likely * dollars,
        "operations_usd_per_year": device.operations_per_year.likely * dollars,
        "inferences_per_month": inferences_per_month,
    }


def node_price(prices: Prices, node: str, inferences_per_second: float, utilisation: float) -> dict[str, Any]:
    """A node's price as a policy file has it, in dollars."""
    return {
        "node_usd_per_hour": prices.nodes[node].per_hour.likely * prices.usd_per_unit,
        "inferences_per_second": inferences_per_second,
        "utilisation": utilisation,
        "egress_usd_per_gb": prices.per_gb.likely * prices.usd_per_unit,
    }


def _backend(name: str, workload: Workload, serving: Serving, prices: Prices) -> dict[str, Any]:
    if name == EDGE:
        each = workload.rate_per_second / workload.sites
        per_month = round(float((each * INFERENCE / SECOND).to(INFERENCE / MONTH)), 3)
        return {"kind": "onnx", "site": ON_PREMISES, "price": {"device": device_price(prices, per_month)}}
    assert serving.cloud is not None
    price = node_price(prices, workload.node, workload.node_per_second, workload.node_utilisation)
    return {"kind": "triton", "site": CLOUD, "url": serving.cloud.url, "price": {"node": price}}


def _model(workload: Workload, serving: Serving, variants: Mapping[str, Any]) -> dict[str, Any]:
    target = workload.p95_target_ms
    deadline = serving.deadline_ms or min(DEADLINE_OVER_TARGET * target, LONGEST_DEADLINE_MS)
    model: dict[str, Any] = {"inputs": tensor_sections(serving.inputs), "outputs": tensor_sections(serving.outputs)}
    if serving.confidence_output:
        model["confidence"] = serving.confidence_output
    model["slo"] = {"p95_ms": target, "deadline_ms": deadline}
    if serving.image is not None:
        model["image"] = dict(serving.image)
    model["variants"] = dict(variants)
    return model


def tensor_sections(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """Tensors as a policy file has them."""
    return {
        name: {"dtype": spec.dtype, "shape": list(spec.shape)}
        | ({"allow_nonfinite": True} if spec.allow_nonfinite else {})
        for name, spec in specs.items()
    }


def _policies(workload: Workload, serving: Serving, choice: Choice) -> dict[str, Any]:
    kinds = {"edge": "local-first", "cloud": "cloud-primary", "split": "split"}
    advised: dict[str, Any] = {"kind": kinds[choice]}
    if choice == "split" and serving.accept_confidence is not None:
        advised["accept_if"] = {"confidence": serving.accept_confidence}
    policies = {POLICY: advised}
    if workload.residency == "redacted-only" and choice == "split":
        policies[RAW_POLICY] = {"kind": "local-first"}
    return policies


def _routes(workload: Workload, serving: Serving, choice: Choice) -> dict[str, Any]:
    """Routes and residency. Where data is held back, so is what does not say what it is."""
    raw = serving.data_class
    if workload.residency == "may-leave":
        return {"routes": [{"policy": POLICY}], "residency": {raw: {}}}
    if choice != "split":
        return {"routes": [{"policy": POLICY}], "residency": {raw: _held(), UNCLASSIFIED: _held()}}
    redacted = f"{raw}-redacted"
    return {
        "routes": [{"data_class": redacted, "policy": POLICY}, {"policy": RAW_POLICY}],
        "residency": {raw: _held(), UNCLASSIFIED: _held(), redacted: {}},
    }


def _held() -> dict[str, Any]:
    return {"sites": [ON_PREMISES]}


def _header(advice: Advice) -> str:
    judgement = advice.judgement
    lines = [
        f"Drafted for {advice.workload.name}: {judgement.recommendation}, decided by {judgement.decided_by}.",
        f"Prices of {advice.cost.dated}. Check with `hybrid-router policy check FILE` after every edit.",
    ]
    redacts = advice.workload.residency == "redacted-only" and judgement.recommendation == "split"
    if redacts and advice.workload.serving is not None:
        redacted = f"{advice.workload.serving.data_class}-redacted"
        lines.append(f"Send what has been redacted with data class {redacted}; all else stays on the premises.")
    shown = ("".join(letter if letter.isprintable() else " " for letter in line) for line in lines)
    return "".join(f"# {' '.join(line.split())}\n" for line in shown)
