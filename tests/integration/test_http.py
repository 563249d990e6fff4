"""Every endpoint, and every error as RFC 9457 problem+json with a sentence that helps."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from app.cloud import TritonProcess
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import BLANK, cloud_only

NOWHERE = "grpc://127.0.0.1:9"
KEY = "a key of sufficient length"


def body(pixels: Any = BLANK, **facts: Any) -> dict[str, Any]:
    return {"model": "digits", "inputs": {"pixels": pixels}, **facts}


def raw(array: np.ndarray, **changes: Any) -> dict[str, Any]:
    content = base64.b64encode(array.tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "base64": content} | changes


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document, checked as RFC 9457 has it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:hybrid-router:error:{code}"
    assert (document["code"], document["status"]) == (code, status)
    assert document["title"]
    assert document["detail"].endswith((".", "?"))
    return document


GETS = ("/status", "/policy", "/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v2")


@pytest.mark.parametrize("path", [*GETS, "/v2/health/live", "/v2/health/ready", "/v2/models/digits"])
def test_every_endpoint_answers(steady: GatewayProcess, path: str) -> None:
    response = steady.http.get(path)
    assert response.status_code == 200
    kind = {"/metrics": "text/plain", "/docs": "text/html"}.get(path, "application/json")
    assert response.headers["content-type"].startswith(kind)
    assert response.content


def test_status_models_and_readiness_agree(steady: GatewayProcess) -> None:
    status = steady.http.get("/status").json()
    models = steady.http.get("/models").json()["models"]
    assert steady.http.get("/readyz").json() == {
        "ready": True,
        "draining": False,
        "models": {"digits": ["edge", "cloud"], "embed": ["edge", "cloud"]},
    }
    assert list(status["models"]) == list(models) == ["digits", "embed"]
    assert status["data_classes"] == {
        "phi": ["on-premises"],
        "camera": ["cloud", "on-premises"],
        "unclassified": ["cloud", "on-premises"],
    }
    assert models["digits"]["variants"] == {"edge": "digits-edge.onnx", "cloud": "digits:1"}
    assert models["digits"]["inputs"] == {"pixels": {"dtype": "float32", "shape": [-1, 64]}}


def test_explain_says_what_infer_then_does(steady: GatewayProcess) -> None:
    for data_class, backend in (("phi", "edge"), ("unclassified", "cloud")):
        request = body(data_class=data_class, deadline_ms=5000)
        explained = steady.http.post("/route/explain", json=request).json()
        answered = steady.infer(**request)
        first = explained["plan"][0]
        assert (first["backend"], explained["policy"]) == (backend, answered["route"]["policy"])
        assert answered["route"]["backend"] == backend
        assert first["bytes_out"] == answered["route"]["bytes_out"]
        assert first["cost_usd"] == pytest.approx(answered["route"]["cost_usd"])
        assert explained["deadline_ms"] == 5000


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}'),
        *(b'{"model": "digits"}', b'{"model": 1, "inputs": {}}'),
        *(json.dumps(body(nonsense=1)).encode(), json.dumps(body()).encode()[:-1]),
    ],
)
def test_a_malformed_body_is_the_senders_fault(steady: GatewayProcess, content: bytes) -> None:
    for path in ("/infer", "/route/explain"):
        problem(steady.http.post(path, content=content), 400, "malformed-body")


BAD_TENSORS: dict[str, Any] = {
    "text": [["0"] * 64],
    "true": [[True] * 64],
    "null": [[None] * 64],
    "too-few": [[0.0] * 63],
    "no-rows": [],
    "flat": [0.0] * 64,
    "too-deep": [BLANK],
    "ragged": [[0.0] * 64, [0.0] * 63],
    "ragged-depth": [[0.0] * 63 + [[0.0]]],
    "number": 1.0,
    "string": "0",
    "base64-dtype": raw(np.zeros((1, 64), np.float64)),
    "base64-shape": raw(np.zeros((1, 63), np.float32)),
    "base64-too-short": raw(np.zeros((1, 63), np.float32), shape=[1, 64]),
    "base64-odd": raw(np.zeros((1, 64), np.float32), base64="AAAA"),
    "base64-none": raw(np.zeros((1, 64), np.float32), base64="!"),
    "base64-nan": raw(np.full((1, 64), math.nan, np.float32)),
    "base64-negative": raw(np.zeros((1, 64), np.float32), shape=[-1, -64]),
    "base64-empty-and-vast": raw(np.zeros((0, 64), np.float32), shape=[0, 10**30]),
    "base64-longer-than-digits-print": raw(np.zeros((1, 64), np.float32), shape=[10**2500, 10**2500]),
}


@pytest.mark.parametrize("tensor", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_bad_tensor_is_named(steady: GatewayProcess, tensor: Any) -> None:
    document = problem(steady.http.post("/infer", json=body(tensor)), 400, "invalid-tensor")
    assert document["field"].startswith("inputs.pixels")
    assert "inputs.pixels" in document["detail"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e39"])
def test_what_is_not_finite_is_refused(steady: GatewayProcess, number: str) -> None:
    text = json.dumps(body()).replace("0.0", number, 1)
    problem(steady.http.post("/infer", content=text), 400, "invalid-tensor")


def test_inputs_are_neither_missing_nor_invented(steady: GatewayProcess) -> None:
    missing = problem(steady.http.post("/infer", json=body() | {"inputs": {}}), 400, "invalid-tensor")
    assert missing["field"] == "inputs.pixels"
    invented = body() | {"inputs": {"pixels": BLANK, "pixel": BLANK}}
    assert problem(steady.http.post("/infer", json=invented), 400, "invalid-tensor")["field"] == "inputs.pixel"


def test_base64_is_as_good_as_lists(steady: GatewayProcess) -> None:
    pixels = np.linspace(0, 1, 192, dtype=np.float32).reshape(3, 64)
    by_list, by_bytes = (steady.infer(**body(it, data_class="phi")) for it in (pixels.tolist(), raw(pixels)))
    assert by_list["outputs"] == by_bytes["outputs"]


def test_an_unknown_model_is_told_the_known_ones(steady: GatewayProcess) -> None:
    document = problem(steady.http.post("/infer", json=body() | {"model": "digit"}), 404, "unknown-model")
    assert document["known_models"] == ["digits", "embed"]
    assert "Did you mean 'digits'?" in document["detail"]


def test_an_unknown_path_is_not_found(steady: GatewayProcess) -> None:
    problem(steady.http.get("/nowhere"), 404, "not-found")


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [("GET", "/infer", "POST"), ("PUT", "/route/explain", "POST"), ("POST", "/status", "GET")],
)
def test_a_wrong_verb_is_told_the_right_one(steady: GatewayProcess, verb: str, path: str, allowed: str) -> None:
    response = steady.http.request(verb, path)
    problem(response, 405, "method-not-allowed")
    assert allowed in response.headers["allow"]


def test_a_body_beyond_the_limit_is_refused(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(policy_text(NOWHERE), HYBRID_ROUTER_MAX_BODY_BYTES="2000")
    for content in (bytes(2001), iter([bytes(1500), bytes(1500)])):  # said at once, and found out in chunks
        document = problem(gateway.http.post("/infer", content=content), 413, "body-too-large")
        assert "HYBRID_ROUTER_MAX_BODY_BYTES" in document["detail"]
    assert gateway.infer(**body())["route"]["backend"] == "edge"


def test_a_body_that_is_not_compressed_as_it_says_is_refused(steady: GatewayProcess) -> None:
    response = steady.http.post("/infer", json=body(), headers={"Content-Encoding": "gzip"})
    assert "Content-Encoding" in problem(response, 400, "malformed-body")["detail"]
    response = steady.http.post("/infer", json=body(), headers={"Content-Encoding": "br"})
    assert "gzip" in problem(response, 415, "unsupported-media-type")["detail"]


@pytest.mark.parametrize("where", ["header", "body"])
@pytest.mark.parametrize("deadline", [0, -1, 600_001, "nan", "soon"])
def test_an_impossible_deadline_is_refused(steady: GatewayProcess, where: str, deadline: Any) -> None:
    if where == "header":
        response = steady.http.post("/infer", json=body(), headers={"X-Deadline-Ms": str(deadline)})
    else:
        response = steady.http.post("/infer", json=body(deadline_ms=deadline))
    assert response.status_code == 400
    assert "deadline" in response.json()["field"].lower()


FACTS = {"data_class": ("X-Data-Class", "phi", "camera"), "id": ("X-Request-Id", "a", "b")}
FACTS["deadline_ms"] = ("X-Deadline-Ms", "1000", "2000")


@pytest.mark.parametrize("fact", FACTS)
def test_header_and_body_must_not_differ(steady: GatewayProcess, fact: str) -> None:
    header, one, other = FACTS[fact]
    value = float(other) if fact == "deadline_ms" else other
    response = steady.http.post("/infer", json=body(**{fact: value}), headers={header: one})
    assert problem(response, 400, "invalid-field")["field"] == fact
    same = float(one) if fact == "deadline_ms" else one
    assert steady.http.post("/infer", json=body(**{fact: same}), headers={header: one}).status_code == 200


@pytest.mark.parametrize("fact", FACTS)
def test_two_headers_must_not_differ(steady: GatewayProcess, fact: str) -> None:
    """Neither may quietly lose: with the wrong one gone, data would lose its protection."""
    header, one, other = FACTS[fact]
    for values in ((one, other), (other, one)):
        response = steady.http.post("/infer", json=body(), headers=[(header, value) for value in values])
        assert problem(response, 400, "invalid-field")["field"] == fact


def test_two_query_fields_must_not_differ(steady: GatewayProcess) -> None:
    headers = {"Content-Type": "image/png"}
    query = "/route/explain?model=digits&data_class=phi&data_class=camera"
    assert (
        problem(steady.http.post(query, content=b"x", headers=headers), 400, "invalid-field")["field"] == "data_class"
    )


def test_a_query_of_many_fields_is_the_senders_fault(steady: GatewayProcess) -> None:
    query = "&".join(f"field{number}=1" for number in range(150))
    response = steady.http.post(f"/infer?model=digits&{query}", content=b"x", headers={"Content-Type": "image/png"})
    problem(response, 400, "invalid-field")


def test_a_misspelt_data_class_is_not_let_in(steady: GatewayProcess) -> None:
    for name in ("PHI", "", "ph", "phi "):
        response = steady.http.post("/infer", json=body(data_class=name))
        assert "phi, camera, unclassified" in problem(response, 400, "invalid-field")["detail"]


def test_ids_are_echoed(steady: GatewayProcess) -> None:
    assert steady.infer(**body(id="till 7/42 é"))["id"] == "till 7/42 é"
    response = steady.http.post("/infer", json=body(), headers={"X-Request-Id": "from the header"})
    assert response.json()["id"] == "from the header"
    first, second = (steady.infer(**body())["id"] for _ in range(2))
    assert first != second
    for bad in ("", "x" * 129, "a\nb"):
        assert problem(steady.http.post("/infer", json=body(id=bad)), 400, "invalid-field")["field"] == "id"


def test_a_class_with_nowhere_to_go_is_forbidden(
    start_gateway: Callable[..., GatewayProcess], triton: TritonProcess
) -> None:
    gateway = start_gateway(cloud_only(policy_text(triton.grpc_url)))
    document = problem(gateway.http.post("/infer", json=body(data_class="phi")), 403, "residency-forbids")
    assert "on-premises" in document["detail"]
    assert gateway.metric("hybrid_router_bytes_out_total") == 0


def test_when_all_are_down_it_says_when_to_try_again(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(cloud_only(policy_text(NOWHERE)))
    response = gateway.http.post("/infer", json=body())
    document = problem(response, 503, "no-backend-available")
    assert "cloud" in document["detail"]
    assert 1 <= int(response.headers["retry-after"]) <= 5
    ready = gateway.http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert gateway.http.get("/healthz").status_code == 200
    assert gateway.http.get("/v2/health/ready").status_code == 503


def test_with_a_key_only_health_is_open(start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(policy_text(NOWHERE), HYBRID_ROUTER_API_KEY=KEY)
    assert gateway.infer(**body())["route"]["backend"] == "edge"
    paths = ("/infer", "/route/explain", "/status", "/policy", "/models", "/metrics", "/openapi.json", "/docs", "/x")
    with httpx.Client(base_url=gateway.url, trust_env=False) as stranger:
        for given in ({}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}):
            for path in paths:
                verb = "POST" if path in ("/infer", "/route/explain") else "GET"
                response = stranger.request(verb, path, headers=given)
                assert "Bearer" in problem(response, 401, "unauthenticated")["detail"]
                assert response.headers["www-authenticate"] == "Bearer"
            response = stranger.post("/v2/models/digits/infer", headers=given)
            assert (response.status_code, list(response.json())) == (401, ["error"])
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert stranger.get(path).status_code == 200
