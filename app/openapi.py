"""The inference routes in the OpenAPI document. The front answers them, so FastAPI cannot know them by itself."""

from __future__ import annotations

import copy
from typing import Any

from app.openapi_answers import ANSWERS

_PIXELS = [[0.0] * 20 + [0.5, 1.0, 0.5] + [0.0] * 41]

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:hybrid-router:error:invalid-tensor"]},
        "title": {"type": "string", "examples": ["Invalid tensor"]},
        "status": {"type": "integer", "examples": [400]},
        "detail": {
            "type": "string",
            "examples": ["inputs.pixels has shape [1, 63]; it must be [-1, 64], where -1 is any size of at least 1."],
        },
        "code": {"type": "string", "description": "A stable name for the kind of error."},
        "field": {"type": "string", "description": "What it is about, in dotted form."},
    },
}

_OIP_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}

_TENSOR = {
    "description": "A nested list, or raw little-endian elements as base64.",
    "oneOf": [
        {"type": "array", "minItems": 1, "items": {}},
        {
            "type": "object",
            "required": ["dtype", "shape", "base64"],
            "additionalProperties": False,
            "properties": {
                "dtype": {"type": "string", "examples": ["float32"]},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "base64": {"type": "string", "contentEncoding": "base64"},
            },
        },
    ],
}

_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "boolean", "number"]}}

_REQUEST = {
    "type": "object",
    "required": ["model", "inputs"],
    "additionalProperties": False,
    "properties": {
        "model": {"type": "string"},
        "inputs": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Tensor"}},
        "parameters": _PARAMETERS,
        "data_class": {"type": ["string", "null"], "description": "What kind of data it is; decides where it may go."},
        "deadline_ms": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 600000},
        "priority": {
            "type": ["string", "null"],
            "enum": ["low", "normal", "high", None],
            "description": "Who goes first, and who is refused last, when a backend is busy.",
        },
        "id": {"type": ["string", "null"], "minLength": 1, "maxLength": 128},
    },
    "examples": [{"model": "digits", "inputs": {"pixels": _PIXELS}, "data_class": "phi", "deadline_ms": 250}],
}

_TENSOR_PARAMETERS = {
    "type": "object",
    "properties": {
        "binary_data_size": {
            "type": "integer",
            "minimum": 0,
            "description": "Bytes of this tensor behind the JSON, whose length Inference-Header-Content-Length says.",
        }
    },
}

_OUTPUT_PARAMETERS = {
    "type": "object",
    "properties": {"binary_data": {"type": "boolean", "description": "Wins over the request's binary_data_output."}},
}

_OIP_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "datatype": {"type": "string"},
                    "data": {"type": "array", "items": {}, "description": "Nested or flat; none if binary."},
                    "parameters": _TENSOR_PARAMETERS,
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": _OUTPUT_PARAMETERS},
            },
        },
    },
    "examples": [{"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": _PIXELS[0]}]}],
}

_HEADERS = [
    {"in": "header", "name": "X-Deadline-Ms", "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 600000}},
    {"in": "header", "name": "X-Data-Class", "schema": {"type": "string"}},
    {"in": "header", "name": "X-Priority", "schema": {"enum": ["low", "normal", "high"]}},
    {"in": "header", "name": "X-Request-Id", "schema": {"type": "string", "minLength": 1, "maxLength": 128}},
]

_QUERY = [
    {
        "in": "query",
        "name": "model",
        "schema": {"type": "string"},
        "description": "The model, where the body is an image.",
    }
]

_FAILURES = {
    400: "A field is wrong; `field` names it.",
    401: "The gateway asks for a key.",
    403: "The data class may not go to any backend of the model.",
    404: "There is no such model; `known_models` lists those that there are.",
    408: "The body arrived too slowly.",
    413: "The body is too large.",
    415: "The body's type or coding is not accepted.",
    422: "The image cannot be decoded.",
    429: "Every permitted backend is busy; `Retry-After` says when to try again.",
    503: "No permitted backend can answer; `Retry-After` says when to try again.",
    504: "No permitted backend answered in time.",
}


def with_inference_routes(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document with the routes that the front answers."""
    document = copy.deepcopy(document)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {"Problem": _PROBLEM, "OipError": _OIP_ERROR, "Tensor": _TENSOR}
    schemas |= {"InferRequest": _REQUEST, "OipInferRequest": _OIP_REQUEST} | ANSWERS
    paths = document["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            _describe_failures(path, operation)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    paths["/infer"] = {"post": _operation("infer", "Infer", "InferRequest", "InferResponse", images=True)}
    paths["/route/explain"] = {
        "post": _operation(
            "explain", "The plan a request would get; nothing is executed", "InferRequest", "Plan", images=True
        )
    }
    model = {"in": "path", "name": "model", "required": True, "schema": {"type": "string", "examples": ["digits"]}}
    version = {"in": "path", "name": "version", "required": True, "schema": {"type": "string", "examples": ["1"]}}
    for path, names in (
        ("/v2/models/{model}/infer", [model]),
        ("/v2/models/{model}/versions/{version}/infer", [model, version]),
    ):
        operation = _operation(
            f"oip_infer_{len(names)}",
            "Infer (JSON or binary tensors)",
            "OipInferRequest",
            "OipInferResponse",
            error="OipError",
        )
        operation |= {"tags": ["Open Inference Protocol"], "parameters": [*names, *_HEADERS]}
        paths[path] = {"post": operation}
    return document


def _describe_failures(path: str, operation: dict[str, Any]) -> None:
    """What the GET routes answer besides 200, in place of what FastAPI assumes."""
    responses = operation["responses"]
    responses.pop("422", None)
    error = {"content": {"application/json": {"schema": _schema("OipError")}}}
    if "{model}" in path:
        responses["404"] = {"description": "There is no such model or version."} | error
    if path.endswith("/ready"):
        responses["503"] = {"description": "It cannot be answered at present."} | error
    if path == "/readyz":
        responses["503"] = {"description": "No model can be answered.", "content": {"application/json": {}}}


def _operation(
    operation_id: str,
    summary: str,
    request: str,
    response: str,
    *,
    images: bool = False,
    error: str = "Problem",
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _schema(request)}}
    if images:
        content |= {f"image/{kind}": {"schema": {"type": "string", "format": "binary"}} for kind in ("png", "jpeg")}
    error_type = "application/json" if error == "OipError" else "application/problem+json"
    failures = {
        str(status): {"description": text, "content": {error_type: {"schema": _schema(error)}}}
        for status, text in (
            _FAILURES | ({501: "Shared memory and classification are not supported."} if error == "OipError" else {})
        ).items()
    }
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["inference"],
        "parameters": [*(_QUERY if images else []), *_HEADERS],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": {"schema": _schema(response)}}}
        }
        | failures,
    }


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
