"""A thousand malformed requests against one gateway: no 5xx, no dropped connection, no memory kept."""

from __future__ import annotations

import copy
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.cloud import TritonProcess
from tests.gateway_process import GatewayProcess, policy_text
from tests.integration.scenario import is_up, resident_bytes

NATIVE = {
    "model": "digits",
    "inputs": {"pixels": [[0.0] * 64]},
    "parameters": {"a": 1},
    "data_class": "phi",
    "deadline_ms": 60_000,
    "id": "one",
}
PROTOCOL = {
    "id": "one",
    "parameters": {"data_class": "phi", "deadline_ms": 60_000},
    "inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64, "parameters": {}}],
    "outputs": [{"name": "label", "parameters": {}}],
}
PATHS = st.sampled_from(["/infer", "/route/explain", "/v2/models/digits/infer"])
FAR_MS = 1000
"""A nearer deadline may pass, and then a 504 is the right answer."""

GROWTH_BYTES = 64 << 20
"""More than allocators and caches of a young process take; a leak of a body a request would be ten times that."""

A_PART = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def victim(triton: TritonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The one gateway that gets it all; in the end it is as good as new."""
    file = tmp_path_factory.mktemp("garbage") / "policy.yaml"
    file.write_text(policy_text(triton.grpc_url))
    with GatewayProcess(file, {}) as gateway:
        gateway.wait_until(is_up)
        for _ in range(50):
            gateway.infer(**NATIVE)
        before = resident_bytes(gateway.process.pid)
        yield gateway
        assert gateway.process.poll() is None
        assert gateway.infer(**NATIVE)["route"]["backend"] == "edge"
        assert gateway.infer(**NATIVE | {"data_class": "camera"})["route"]["degraded"] is False
        assert is_up(gateway)
        gateway.wait_until(lambda it: it.metric("hybrid_router_in_flight") == 0)
        assert resident_bytes(gateway.process.pid) - before < GROWTH_BYTES
        assert "Traceback" not in gateway.log()


def send(victim: GatewayProcess, path: str, content: bytes) -> httpx.Response:
    """POSTs; a dropped connection raises. An answer of 400 or more must be a document in the route's own form."""
    response = victim.http.post(path, content=content)
    if response.is_error:
        document = response.json()
        sentence = document["error" if path.startswith("/v2") else "detail"]
        assert response.status_code < 500 or is_the_senders_doing(sentence), (response.text, content)
        assert sentence
    return response


def is_the_senders_doing(sentence: str) -> bool:
    """The two 5xx that a sender can cause: to ask for shared memory (501), and for an answer in no time (504)."""
    deadline = re.search(r"within the deadline of (-?\d+) ms", sentence)
    return "is not supported" in sentence or (deadline is not None and int(deadline[1]) < FAR_MS)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(10**2500)
    | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document, of long lists those in front only."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, child in value.items():
            yield from spots(child, (*path, name))
    elif isinstance(value, list):
        for index, child in enumerate(value[:2]):
            yield from spots(child, (*path, index))


def mutated(document: dict[str, Any], path: tuple[Any, ...], how: str, value: Any) -> dict[str, Any]:
    """The document with one of its values replaced, removed, or given a neighbour."""
    document = copy.deepcopy(document)
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    if how == "remove":
        del holder[path[-1]]
    elif how == "replace":
        holder[path[-1]] = value
    elif isinstance(holder, list):
        holder.append(value)
    else:
        holder[str(value)[:20]] = value
    return document


def as_json(document: Any) -> bytes:
    """JSON as Python writes it: NaN and the infinities included, which JSON does not have."""
    return json.dumps(document).encode()


MUTATIONS = st.tuples(st.sampled_from(["replace", "remove", "add"]), ANYTHING)


@given(path=PATHS, content=st.binary(max_size=300))
@A_PART
def test_random_bytes(victim: GatewayProcess, path: str, content: bytes) -> None:
    assert send(victim, path, content).status_code in (400, 404)


@given(path=PATHS, where=st.integers(0, 400), garbage=st.binary(max_size=6), cut=st.integers(0, 6))
@A_PART
def test_json_with_bytes_exchanged(victim: GatewayProcess, path: str, where: int, garbage: bytes, cut: int) -> None:
    content = as_json(PROTOCOL if path.startswith("/v2") else NATIVE)
    where %= len(content)
    send(victim, path, content[:where] + garbage + content[where + cut :])


@given(path=st.sampled_from(["/infer", "/route/explain"]), spot=st.sampled_from(list(spots(NATIVE))), change=MUTATIONS)
@A_PART
@example("/infer", ("inputs", "pixels"), ("replace", {"dtype": "float32", "shape": [0, 10**30], "base64": ""}))
@example("/infer", ("inputs", "pixels"), ("replace", {"dtype": "float32", "shape": [10**2500] * 2, "base64": "AAAA"}))
@example("/infer", ("deadline_ms",), ("replace", 10**400))
def test_mutated_requests(victim: GatewayProcess, path: str, spot: tuple[Any, ...], change: tuple[str, Any]) -> None:
    send(victim, path, as_json(mutated(NATIVE, spot, *change)))


@given(spot=st.sampled_from(list(spots(PROTOCOL))), change=MUTATIONS)
@A_PART
@example(("inputs", 0, "shape"), ("replace", [10**2500] * 2))
@example(("parameters", "deadline_ms"), ("replace", 10**400))
def test_mutated_protocol_requests(victim: GatewayProcess, spot: tuple[Any, ...], change: tuple[str, Any]) -> None:
    send(victim, "/v2/models/digits/infer", as_json(mutated(PROTOCOL, spot, *change)))


BINARY = {
    "id": "one",
    "parameters": {"data_class": "phi", "deadline_ms": 60_000, "binary_data_output": True},
    "inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}}],
    "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
}
LENGTHS = st.integers(-300, 300) | st.text("0123456789+-. ", max_size=25)
PACKERS: dict[str | None, Callable[[bytes], bytes]] = {None: bytes, "gzip": gzip.compress, "deflate": zlib.compress}


@given(
    spot=st.sampled_from(list(spots(BINARY))),
    change=st.none() | MUTATIONS,
    raw=st.just(bytes(256)) | st.binary(max_size=300),
    length=st.just(0) | LENGTHS,
    coding=st.sampled_from([None, None, *PACKERS]),
    cut=st.none() | st.integers(0, 300),
)
@A_PART
@example(("inputs", 0, "shape"), ("replace", [10**6, 10**6]), bytes(256), 0, None, None)
@example(("inputs", 0, "parameters", "binary_data_size"), ("replace", 10**12), bytes(256), 0, None, None)
@example(("id",), None, bytes(256), 0, None, None)
def test_mutated_binary_requests(
    victim: GatewayProcess,
    spot: tuple[Any, ...],
    change: tuple[str, Any] | None,
    raw: bytes,
    length: int | str,
    coding: str | None,
    cut: int | None,
) -> None:
    """`length` is what the header says: so much more than is right, or anything."""
    document = as_json(BINARY if change is None else mutated(BINARY, spot, *change))
    said = str(len(document) + length) if isinstance(length, int) else length.strip()
    headers = {"Inference-Header-Content-Length": said} | ({"Content-Encoding": coding} if coding else {})
    content = PACKERS[coding](document + raw)[:cut]
    response = victim.http.post("/v2/models/digits/infer", content=content, headers=headers)
    if response.is_error:
        sentence = response.json()["error"]
        assert response.status_code < 500 or is_the_senders_doing(sentence), (response.text, content)


HEADER = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_categories=["Cc"]), min_size=1, max_size=40
)
DEADLINE = st.floats().map(repr) | st.integers().map(str) | HEADER


def is_far(deadline: str) -> bool:
    try:
        return not float(deadline.encode("latin-1")) < FAR_MS
    except ValueError:
        return True


@given(path=PATHS, deadline=DEADLINE.filter(is_far), data_class=HEADER, media_type=HEADER, id=HEADER)
@A_PART
def test_random_headers(
    victim: GatewayProcess, path: str, deadline: str, data_class: str, media_type: str, id: str
) -> None:
    document = dict(PROTOCOL if path.startswith("/v2") else NATIVE)
    content = as_json({name: value for name, value in document.items() if name in ("model", "inputs")})
    for headers in (
        {"X-Deadline-Ms": deadline},
        {"X-Data-Class": data_class},
        {"Content-Type": media_type},
        {"X-Request-Id": id},
        {"X-Deadline-Ms": deadline, "X-Data-Class": data_class, "Content-Type": media_type, "X-Request-Id": id},
    ):
        encoded: Any = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        response = victim.http.post(path, content=content, headers=encoded)
        assert response.status_code < 500, (response.status_code, headers)


@given(query=st.text(max_size=60), image=st.binary(max_size=60))
@A_PART
def test_random_queries_and_images(victim: GatewayProcess, query: str, image: bytes) -> None:
    for params in ({"model": "digits", "data_class": query}, {"model": query}, {"model": "digits", query: query}):
        for path in ("/infer", "/route/explain"):
            response = victim.http.post(path, params=params, content=image, headers={"Content-Type": "image/png"})
            assert response.status_code < 500, (response.status_code, query, image)
