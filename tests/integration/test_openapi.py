"""The OpenAPI document: valid, complete, and true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from tests.gateway_process import GatewayProcess

ROUTES = {
    "/infer": "post",
    "/route/explain": "post",
    "/status": "get",
    "/policy": "get",
    "/models": "get",
    "/healthz": "get",
    "/readyz": "get",
    "/metrics": "get",
    "/v2": "get",
    "/v2/health/live": "get",
    "/v2/health/ready": "get",
    "/v2/models/{model}": "get",
    "/v2/models/{model}/versions/{version}": "get",
    "/v2/models/{model}/ready": "get",
    "/v2/models/{model}/versions/{version}/ready": "get",
    "/v2/models/{model}/config": "get",
    "/v2/models/{model}/versions/{version}/config": "get",
    "/v2/models/{model}/stats": "get",
    "/v2/models/{model}/versions/{version}/stats": "get",
    "/v2/models/stats": "get",
    "/v2/repository/index": "post",
    "/v2/models/{model}/infer": "post",
    "/v2/models/{model}/versions/{version}/infer": "post",
}


@pytest.fixture(scope="module")
def document(steady: GatewayProcess) -> dict[str, Any]:
    found: dict[str, Any] = steady.http.get("/openapi.json").json()
    return found


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in the document."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from nodes(child)


def resolved(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            yield f"{verb} {path}", operation


def test_it_lists_all_routes_and_no_other(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert {path: next(iter(verbs)) for path, verbs in document["paths"].items()} == ROUTES
    assert all(len(verbs) == 1 for verbs in document["paths"].values())


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert references
    for reference in references:
        assert resolved(document, reference), reference


def test_operations_are_described(document: dict[str, Any]) -> None:
    identifiers = []
    for name, operation in operations(document):
        identifiers.append(operation["operationId"])
        assert operation["summary"], name
        assert "200" in operation["responses"], name
        assert all(answer["description"] for answer in operation["responses"].values()), name
        in_path = {it["name"] for it in operation.get("parameters", ()) if it["in"] == "path"}
        assert in_path == {part.split("}")[0] for part in name.split("{")[1:]}, name
        assert all(it["required"] for it in operation.get("parameters", ()) if it["in"] == "path"), name
    assert len(identifiers) == len(set(identifiers))


def test_schemas_are_schemas_and_their_examples_fit(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
        for example in schema.get("examples", ()):
            assert validator.is_valid(example), name


def forms(value: Any) -> Any:
    """The names in an answer, without what stands under them."""
    if isinstance(value, dict):
        return {name: forms(child) for name, child in value.items()}
    return [forms(child) for child in value if isinstance(child, dict)] if isinstance(value, list) else None


ASKED = [
    ("/infer", "InferRequest", "InferResponse"),
    ("/route/explain", "InferRequest", "Plan"),
    ("/v2/models/digits/infer", "OipInferRequest", "OipInferResponse"),
    ("/v2/models/digits/versions/1/infer", "OipInferRequest", "OipInferResponse"),
]


@pytest.mark.parametrize(("path", "asked", "answered"), ASKED)
def test_the_examples_are_accepted_and_answered_as_the_example_says(
    path: str, asked: str, answered: str, steady: GatewayProcess, document: dict[str, Any]
) -> None:
    schemas = document["components"]["schemas"]
    (example,) = schemas[asked]["examples"]
    headers = {"X-Data-Class": "phi"}  # so that the device answers, as in the examples
    response = steady.http.post(path, json=example, headers=headers)
    assert response.status_code == 200, response.text
    found = response.json()
    jsonschema_rs.Draft202012Validator({**schemas[answered], "components": document["components"]}).validate(found)
    (promised,) = schemas[answered]["examples"]
    assert forms(found) == forms(promised)
    for node in ("outputs", "left_out"):  # what does not depend on the machine
        if node in promised:
            assert rounded(found[node]) == rounded(promised[node])


def rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [rounded(child) for child in value]
    if isinstance(value, dict):
        return {name: rounded(child) for name, child in value.items()}
    return round(value, 4) if isinstance(value, float) else value
