"""Small deployments and requests for the tests of the engine."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from router.deployment import BackendEntry, Deployment, ModelEntry, RouteRule
from router.model import ImageSpec, ModelSpec, Tensor, TensorSpec
from router.plan import AcceptIf, Attempt
from router.ports import Policy
from router.pricing import NodePrice
from router.stages import Decode
from router.types import EncodedImage, InferenceRequest, Payload, nbytes
from tests.unit.standins import FakeOptions, FakeVariant, FixedPolicy
from tests.unit.virtual_time import virtual_loop

EDGE_USD = 0.001
CLOUD_USD = 0.01
CLOUD_USD_PER_BYTE = 1e-6

MODEL = ModelSpec(
    name="m",
    version="1",
    inputs={"x": TensorSpec("float32", (-1, 2))},
    outputs={"scores": TensorSpec("float32", (-1, 2)), "row": TensorSpec("int64", (-1,))},
    confidence_output="scores",
    image=ImageSpec("x", (Decode(),)),
)
"""Takes rows of two numbers; a stand-in answers with the same numbers as scores unless told otherwise."""

EDGE = Attempt("edge", "v1")
CLOUD = Attempt("cloud", "v1")
EDGE_IF_SURE = replace(EDGE, accept_if=AcceptIf(0.9))
DEGRADED_EDGE = replace(EDGE, degraded=True)

PRICES = {
    "edge": NodePrice(node_usd_per_hour=EDGE_USD * 3600, inferences_per_second=1),
    "cloud": NodePrice(
        node_usd_per_hour=CLOUD_USD * 3600, inferences_per_second=1, egress_usd_per_gb=CLOUD_USD_PER_BYTE * 1e9
    ),
}
SITES = {"edge": "on-premises", "cloud": "cloud"}

_ids = itertools.count(1)


def plan(*attempts: Attempt) -> FixedPolicy:
    """A policy that always plans these."""
    return FixedPolicy(attempts)


def deployment(
    policy: Policy | None = None,
    *,
    backends: tuple[str, ...] = ("edge", "cloud"),
    model: ModelSpec = MODEL,
    variants: Mapping[str, FakeVariant] | None = None,
    routes: tuple[RouteRule, ...] = (RouteRule("*", "*", "p"),),
    residency: Mapping[str, frozenset[str] | None] | None = None,
    slo_p95_s: float = 0.05,
    deadline_s: float = 0.5,
) -> Deployment:
    """The model on an edge backend on the premises and a cloud backend elsewhere; cloud, then degraded edge."""
    return Deployment(
        backends={name: BackendEntry("fake", SITES[name], PRICES[name], FakeOptions(name)) for name in backends},
        models={
            model.name: ModelEntry(model, slo_p95_s, deadline_s, variants or {name: FakeVariant() for name in backends})
        },
        policies={"p": policy or plan(CLOUD, DEGRADED_EDGE)},
        routes=routes,
        residency={"phi": frozenset({"on-premises"})} if residency is None else residency,
    )


def rows(*firsts: float) -> dict[str, Tensor]:
    """A payload of rows whose greatest number, and so their confidence, is the given one."""
    return {"x": np.array([[first, 0.0] for first in firsts], np.float32).reshape(-1, 2)}


def request(
    payload: Payload | None = None, *, data_class: str = "unclassified", within_s: float | None = None
) -> InferenceRequest:
    """A request that arrives now."""
    now = virtual_loop().time()
    payload = rows(0.95) if payload is None else payload
    return InferenceRequest(
        id=f"r{next(_ids)}",
        model=MODEL.name,
        payload=payload,
        payload_bytes=nbytes(payload),
        data_class=data_class,
        arrived=now,
        deadline=None if within_s is None else now + within_s,
    )


IMAGE = EncodedImage(b"not looked at", "image/png")
