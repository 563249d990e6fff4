"""What the inference routes answer, in the OpenAPI document: schemas, each with an answer of the sample models."""

from __future__ import annotations

from typing import Any

_NUMBERS = {"type": "array", "items": {}}

_PROBABILITIES = [0.0803, 0.0529, 0.0655, 0.0064, 0.2236, 0.0027, 0.0088, 0.1563, 0.092, 0.3115]

_REASON = "local first: edge's predicted P95 is 0.1 ms"


def _record(description: str = "", /, **properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has all of these properties and no other."""
    found: dict[str, Any] = {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }
    return found | ({"description": description} if description else {})


_ATTEMPT = _record(
    "A call on a backend. `dropped`: nothing says that it came through; `ignore`: it says nothing about the backend.",
    backend={"type": "string"},
    outcome={"enum": ["success", "ignore", "dropped"]},
    error={"type": ["string", "null"]},
    **{f"{phase}_ms": {"type": "number"} for phase in ("queue", "network", "compute", "stages")},
)

_ROUTE = _record(
    policy={"type": "string"},
    backend={"type": "string"},
    variant={"type": "string"},
    degraded={"type": "boolean", "description": "Whether it is a lesser answer than wished for."},
    reason={"type": "string"},
    attempts={"type": "array", "items": _ATTEMPT},
    latency_ms={"type": "number"},
    cost_usd={"type": "number"},
    bytes_out={"type": "integer", "description": "Payload bytes that left the premises."},
)

_ANSWER = _record(
    id={"type": "string"},
    model={"type": "string"},
    outputs={"type": "object", "additionalProperties": _NUMBERS},
    route=_ROUTE,
) | {
    "examples": [
        {
            "id": "42c40adf-2",
            "model": "digits",
            "outputs": {"label": [9], "probabilities": [_PROBABILITIES]},
            "route": {
                "policy": "kiosk",
                "backend": "edge",
                "variant": "digits-edge.onnx",
                "degraded": False,
                "reason": _REASON,
                "attempts": [
                    {
                        "backend": "edge",
                        "outcome": "success",
                        "error": None,
                        "queue_ms": 0.0,
                        "network_ms": 0.0,
                        "compute_ms": 0.031,
                        "stages_ms": 0.0,
                    }
                ],
                "latency_ms": 0.133,
                "cost_usd": 0.0000047,
                "bytes_out": 0,
            },
        }
    ]
}

_MS = {"type": ["number", "null"]}

_PLANNED = _record(
    backend={"type": "string"},
    variant={"type": "string"},
    site={"type": "string"},
    stages={"type": "array", "items": {"type": "string"}, "description": "Preprocessing that runs here first."},
    accept_if={"type": ["object", "null"], "description": "When its answer is final, in a cascade."},
    degraded={"type": "boolean"},
    hedge_after_ms={**_MS, "description": "After so long the next attempt starts beside it."},
    reserve_ms={"type": "number", "description": "What is kept of the deadline for the attempts behind it."},
    predicted={
        "oneOf": [_record(**{f"p{percent}_ms": {"type": "number"} for percent in (50, 95, 99)}), {"type": "null"}]
    },
    cost_usd={"type": "number"},
    bytes_out={"type": ["integer", "null"], "description": "Null where stages run first: it is not known yet."},
)

_PLAN = _record(
    id={"type": "string"},
    model={"type": "string"},
    data_class={"type": ["string", "null"]},
    policy={"type": "string"},
    generation={"type": "integer"},
    reason={"type": "string"},
    deadline_ms={"type": "number"},
    plan={"type": "array", "items": _PLANNED},
    left_out={"type": "array", "items": _record(backend={"type": "string"}, why={"type": "string"})},
) | {
    "examples": [
        {
            "id": "42c40adf-3",
            "model": "digits",
            "data_class": "phi",
            "policy": "kiosk",
            "generation": 1,
            "reason": _REASON,
            "deadline_ms": 250.0,
            "plan": [
                {
                    "backend": "edge",
                    "variant": "digits-edge.onnx",
                    "site": "on-premises",
                    "stages": [],
                    "accept_if": None,
                    "degraded": False,
                    "hedge_after_ms": None,
                    "reserve_ms": 10.0,
                    "predicted": {"p50_ms": 0.113, "p95_ms": 0.113, "p99_ms": 0.113},
                    "cost_usd": 0.0000047,
                    "bytes_out": 0,
                }
            ],
            "left_out": [{"backend": "cloud", "why": "data class 'phi' may not go to cloud"}],
        }
    ]
}

_OIP_OUTPUT = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {**_NUMBERS, "description": "Flat; none if binary."},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
    },
}

_OIP_ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs", "parameters"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": {"type": "object", "description": "The route that was taken."},
        "outputs": {"type": "array", "items": _OIP_OUTPUT},
    },
    "examples": [
        {
            "model_name": "digits",
            "model_version": "1",
            "id": "42c40adf-4",
            "parameters": {
                "backend": "edge",
                "policy": "kiosk",
                "variant": "digits-edge.onnx",
                "degraded": False,
                "latency_ms": 0.133,
                "cost_usd": 0.0000047,
                "bytes_out": 0,
                "reason": _REASON,
                "attempts": "edge: answered",
            },
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [1], "data": [9]},
                {"name": "probabilities", "datatype": "FP32", "shape": [1, 10], "data": _PROBABILITIES},
            ],
        }
    ],
}

ANSWERS = {"InferResponse": _ANSWER, "Plan": _PLAN, "OipInferResponse": _OIP_ANSWER}
"""The schemas, by name."""
