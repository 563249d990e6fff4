"""The files that serve a model: a policy file for each subject, and a Triton repository. Pure.

Invariant: a policy file is loaded by the gateway's own loader before it is returned.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from backends.oip import datatype
from planning.bench.plan import Plan, Subject
from planning.policy_draft import device_price, node_price, tensor_sections
from planning.prices import Prices
from planning.units import INFERENCE, MONTH, SECOND
from policies.document import PolicyFileError
from policies.loader import load
from router.model import ModelSpec
from router.types import ON_PREMISES

EDGE, CLOUD = "edge", "cloud"
POLICY = "benchmark"
MODEL_FILE = "model.onnx"

LARGEST_BATCH = 64
ALONE: Final = {"edge": {"kind": "local-first"}, "cloud": {"kind": "cloud-primary"}}


class NotServable(Exception):
    """The plan asks for what cannot be served; the message says what to change."""


def policy_file(plan: Plan, subject: Subject, spec: ModelSpec, cloud_url: str, prices: Prices) -> str:
    """The policy file of a subject's gateway.

    Args:
        plan: The plan.
        subject: One that has a gateway of ours.
        spec: The model's tensors.
        cloud_url: Where the gateway finds the cloud: our end of the line.
        prices: What edge and cloud are priced by.

    Raises:
        NotServable: The gateway's loader refuses it.
    """
    variants: dict[str, dict[str, Any]] = {}
    if subject.alone != CLOUD:
        variants[EDGE] = {"file": MODEL_FILE}
    if subject.alone != EDGE:
        own = plan.cloud
        variants[CLOUD] = {"name": spec.name if own is None else own.name}
        variants[CLOUD] |= {"version": own.version} if own is not None and own.version else {}
    policy = dict(ALONE[subject.alone] if subject.policy is None and subject.alone else subject.policy or {})
    model: dict[str, Any] = {
        "inputs": tensor_sections(spec.inputs),
        "outputs": tensor_sections(spec.outputs),
        "slo": {"p95_ms": plan.p95_target_ms, "deadline_ms": plan.deadline_ms},
        "variants": variants,
    }
    if plan.model.confidence_output:
        model["confidence"] = plan.model.confidence_output
    content = {
        "version": 1,
        "backends": {name: _backend(name, plan, cloud_url, prices) for name in variants},
        "models": {spec.name: model},
        "policies": {POLICY: policy},
        "routes": [{"policy": POLICY}],
    }
    text = yaml.safe_dump(content, sort_keys=False)
    try:
        load(text.encode(), f"the policy file for {subject.name}")
    except PolicyFileError as error:
        raise NotServable(f"subjects.{subject.name} makes no policy file:\n{error}") from None
    return text


def _backend(name: str, plan: Plan, cloud_url: str, prices: Prices) -> dict[str, Any]:
    if name == EDGE:
        used = prices.device.inferences_per_second.likely * plan.device_utilisation
        per_month = round(float((used * INFERENCE / SECOND).to(INFERENCE / MONTH)), 3)
        price = {"device": device_price(prices, per_month)}
        return {"kind": "onnx", "site": ON_PREMISES, "price": price}
    if plan.node not in prices.nodes:
        raise NotServable(f"node: there is no {plan.node!r} in the prices; it must be {', '.join(prices.nodes)}.")
    per_second = prices.nodes[plan.node].inferences_per_second.likely
    price = {"node": node_price(prices, plan.node, per_second, plan.node_utilisation)}
    return {"kind": "triton", "site": CLOUD, "url": cloud_url, "price": price}


def triton_config(spec: ModelSpec) -> str:
    """The `config.pbtxt` with which deploy/triton/model.py serves the model.

    Raises:
        NotServable: That file cannot serve such a model.
    """
    inputs = list(spec.inputs.items())
    if len(inputs) != 1 or inputs[0][1].dtype != "float32" or inputs[0][1].shape[:1] not in ((-1,), (1,)):
        raise NotServable(
            "model: the Triton on this machine takes one float32 input whose first dimension is the batch: "
            "name a cloud of your own that serves this one (`cloud: {url, name}`), or measure `alone: edge` only."
        )
    batch = LARGEST_BATCH if inputs[0][1].shape[0] == -1 else 1
    outputs = ", ".join(_tensor(name, tensor.dtype, tensor.shape) for name, tensor in spec.outputs.items())
    return (
        f'name: "{spec.name}"\nbackend: "python"\nmax_batch_size: {batch}\n'
        f"input [ {_tensor(inputs[0][0], inputs[0][1].dtype, inputs[0][1].shape)} ]\n"
        f"output [ {outputs} ]\n"
        # No queue delay: what arrives while a batch runs is the next batch, and a lone request never waits.
        "dynamic_batching { }\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n"
    )


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> str:
    kind = datatype(dtype).replace("BYTES", "STRING")
    sizes = ", ".join(str(size) for size in shape[1:] or (1,))
    return f'{{ name: "{name}" data_type: TYPE_{kind} dims: [ {sizes} ] }}'
