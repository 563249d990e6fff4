"""A right server of the Open Inference Protocol, small, that can be told to be wrong in one way: its quirk.

It is what the kit is held against: a right one must pass every check, and a quirk must fail the check that is meant.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import orjson

from conformance.tensors import Model, Spec, Tensor, from_plain, from_raw
from conformance.verdict import Fails

SUM = Model(
    "sum",
    ("1",),
    (Spec("a", "FP32", (-1, 4)), Spec("b", "INT64", (-1, 2))),
    (Spec("total", "FP32", (-1,)), Spec("copy", "INT64", (-1, 2))),
)
MODELS = {
    model.name: model
    for model in (
        SUM,
        Model("text", ("1",), (Spec("in", "BYTES", (-1, 2)),), (Spec("out", "BYTES", (-1, 2)),)),
        Model("half", ("1",), (Spec("in", "FP16", (2,)),), (Spec("out", "FP16", (2,)),)),
        Model("spare", ("1",), (Spec("in", "BOOL", (-1, -1)),), (Spec("out", "BOOL", (-1, -1)),)),
    )
}
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics", "model_repository")
STATUSES = {
    "unknown-model": 404,
    "unknown-version": 404,
    "unknown-metadata": 404,
    "unknown-ready": 404,
    "unknown-path": 404,
    "wrong-verb": 405,
    "unknown-encoding": 415,
    "no-texts": 500,
}
LENGTH = "Inference-Header-Content-Length"


class Refusal(Exception):
    """What is wrong with a request: the id of the check that asks for it to be refused."""


@dataclass
class Core:
    """The models, whatever the transport.

    Attributes:
        quirk: What it does wrong; empty for nothing.
        counts: Inferences by model.
    """

    quirk: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    def model(self, name: str, version: str = "", unknown: str = "unknown-model") -> Model:
        """A model that is there."""
        if name not in MODELS:
            raise Refusal(unknown)
        if version not in ("", "1"):
            raise Refusal("unknown-version")
        return MODELS[name]

    def claims(self, model: Model, inputs: Mapping[str, tuple[str, list[int]]]) -> None:
        """Holds the names, datatypes and shapes of inputs against the metadata, before any element is looked at."""
        specs = {spec.name: spec for spec in model.inputs}
        if set(inputs) - set(specs):
            raise Refusal("unknown-input")
        if set(specs) - set(inputs):
            raise Refusal("missing-input")
        for name, (datatype, shape) in inputs.items():
            if datatype != specs[name].datatype:
                raise Refusal("wrong-datatype")
            if min(shape) < 0:
                raise Refusal("negative-shape")
            if math.prod(shape) > 2**40:
                raise Refusal("vast-shape")
            wanted = specs[name].shape
            if len(shape) != len(wanted) or any(a not in (-1, b) for a, b in zip(wanted, shape, strict=True)):
                raise Refusal("wrong-shape")

    def run(self, model: Model, tensors: Mapping[str, Tensor], wanted: list[str]) -> list[Tensor]:
        """The outputs that were asked for; all for an empty list."""
        if self.quirk == "wants-pictures" and model.name == "text":
            raise Refusal("no picture")
        names = [spec.name for spec in model.outputs]
        if set(wanted) - set(names):
            raise Refusal("unknown-output")
        self.counts[model.name] = self.counts.get(model.name, 0) + (self.quirk != "uncounted")
        values = [tensor.values for tensor in tensors.values()]
        if model is SUM:
            values = [tensors["a"].values.sum(axis=1, dtype=np.float32), tensors["b"].values]
        if self.quirk == "one-row":
            values = [array[:1] if len(array) > 1 and model is SUM else array for array in values]
        outputs = {
            spec.name: Tensor(spec.name, spec.datatype, array)
            for spec, array in zip(model.outputs, values, strict=True)
        }
        chosen = names if not wanted or self.quirk == "unselected" else wanted
        if not wanted and self.quirk == "reversed":
            chosen = names[::-1]
        return [outputs[name] for name in chosen]

    def metadata(self, model: Model) -> dict[str, Any]:
        """What it says of a model."""
        sides = {
            side: [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]
            for side, specs in (("inputs", model.inputs), ("outputs", model.outputs))
        }
        if self.quirk == "declares-another" and model is SUM:
            sides["outputs"][0]["datatype"] = "FP64"
        return {"name": model.name, "versions": ["1"], "platform": "test", **sides}


class RestServer(Core):
    """The same over REST, as a handler of `httpx.MockTransport`."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answers."""
        response = self._answer(request)
        encoding = request.headers.get("accept-encoding", "identity")
        if request.url.path.endswith("/infer") and encoding in ("gzip", "deflate") and response.status_code == 200:
            named = "gzip" if self.quirk == "always-gzip" else encoding
            body = (gzip.compress if named == "gzip" else zlib.compress)(response.content)
            headers = {"content-type": response.headers["content-type"], "content-encoding": named}
            return httpx.Response(200, headers=headers, content=body)
        return response

    def _answer(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._route(request)
        except Refusal as refusal:
            return self._refuse(str(refusal))

    def _refuse(self, kind: str) -> httpx.Response:
        quirk, _, which = self.quirk.partition(" ")
        status = STATUSES.get(kind, 400)
        if which == kind:
            if quirk == "accepts":
                return _json(200, {"model_name": "sum", "outputs": []})
            if quirk == "details":
                return _json(status, {"detail": kind})
            status = int(quirk) if quirk.isdigit() else status
        response = _json(status, {"error": kind})
        if self.quirk == "plain-errors":
            response.headers["content-type"] = "text/plain"
        return response

    def _route(self, request: httpx.Request) -> httpx.Response:
        verb, path = request.method, request.url.path
        fixed: dict[str, dict[str, Any]] = {
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
            "/v2": {"name": "right", "version": "1", "extensions": list(EXTENSIONS)},
            "/v2/": {"name": "right", "version": "1", "extensions": list(EXTENSIONS)},
        }
        if self.quirk == f"without {path}":
            return self._refuse("unknown-path")
        if path in fixed:
            if verb != "GET":
                raise Refusal("wrong-verb")
            return self._fixed(path, dict(fixed[path]))
        if path == "/v2/repository/index" and verb == "POST" and self.quirk != "bare":
            return _json(200, [{"name": name} for name in MODELS if self.quirk != "ghosts" or name != "sum"])
        parts = path.split("/")
        if path.startswith("/v2/models/"):
            return self._model_route(request, parts[3:])
        raise Refusal("unknown-path")

    def _fixed(self, path: str, document: dict[str, Any]) -> httpx.Response:
        if self.quirk == f"down {path}":
            return _json(503, document)
        if self.quirk == "empty-bodies" and "health" in path:
            return httpx.Response(200)
        if self.quirk == "nameless":
            document.pop("version", None)
        if self.quirk in ("no-extensions", "bare") and "extensions" in document:
            document["extensions"] = []
        return _json(200, document)

    def _model_route(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        name, rest = parts[0], parts[1:]
        version = rest[1] if rest[:1] == ["versions"] else ""
        what = (rest[2:] if version else rest) or [""]
        if what == ["infer"]:
            if request.method != "POST":
                raise Refusal("wrong-verb")
            return self._infer(request, self.model(name, version))
        if what == ["ready"]:
            return self._ready(name, version)
        model = self.model(name, version, "unknown-metadata")
        if self.quirk in ("bare", "less-than-named") and what != [""]:
            raise Refusal("unknown-path")
        if what == ["config"]:
            return _json(200, self._config(model))
        if what == ["stats"]:
            return _json(200, {"model_stats": [self._statistics(model)]})
        document = self.metadata(model)
        if self.quirk == "no-platform":
            del document["platform"]
        if self.quirk == "other-version" and version:
            document["name"] = "other"
        return _json(200, document)

    def _ready(self, name: str, version: str) -> httpx.Response:
        if self.quirk == "always-ready" and name not in MODELS:
            return _json(200, {"ready": True})
        self.model(name, version, "unknown-ready")
        return _json(503 if self.quirk == "unready" and not version else 200, {"ready": True})

    def _config(self, model: Model) -> dict[str, Any]:
        text = str if self.quirk == "texts-in-config" else int
        return {
            "name": model.name,
            "max_batch_size": 8,
            **{
                side: [
                    {"name": it.name, "data_type": f"TYPE_{it.datatype}", "dims": list(map(text, it.shape))}
                    for it in specs
                ]
                for side, specs in (("input", model.inputs), ("output", model.outputs))
            },
        }

    def _statistics(self, model: Model) -> dict[str, Any]:
        count: Any = self.counts.get(model.name, 0)
        count = str(count) if self.quirk == "texts-in-statistics" else count
        return {
            "name": model.name,
            "version": "1",
            "inference_count": count,
            "execution_count": count,
            "inference_stats": {"success": {"count": count, "ns": 1}},
        }

    def _infer(self, request: httpx.Request, model: Model) -> httpx.Response:
        if self.quirk == f"fails {model.name}":
            return _json(500, {"error": "broken"})
        document, raw, is_binary = self._parts(request)
        if "inputs" not in document:
            raise Refusal("inputs-left-out")
        self._quirks_of_requests(document)
        given = {it["name"]: (it["datatype"], it["shape"]) for it in document["inputs"]}
        self.claims(model, given)
        tensors, offset = {}, 0
        for it in document["inputs"]:
            size = it.get("parameters", {}).get("binary_data_size")
            tensors[it["name"]] = self._tensor(it, None if size is None else raw[offset : offset + size], size)
            offset += size or 0
        if offset != len(raw) and self.quirk != "leftovers":
            raise Refusal("binary")
        if is_binary and self.quirk == "zeroes-b" and document["inputs"][-1].get("parameters"):
            tensors = {name: Tensor(name, it.datatype, it.values * (name != "b")) for name, it in tensors.items()}
        outputs = self.run(model, tensors, [it["name"] for it in document.get("outputs", ())])
        return self._encode(document, model, outputs, "/versions/" in request.url.path)

    def _parts(self, request: httpx.Request) -> tuple[dict[str, Any], bytes, bool]:
        body = request.content
        encoding = request.headers.get("content-encoding")
        if encoding is not None:
            if self.quirk == f"no-{encoding}":
                raise Refusal("encoding")
            if self.quirk == f"unknown-{encoding}":
                raise Refusal("unknown-encoding")
            body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
        claimed = request.headers.get(LENGTH)
        length = len(body)
        if claimed is not None:
            length = int(claimed) if claimed.isdigit() else -1
            if not 0 <= length <= len(body):
                if self.quirk != "mends-lengths":
                    raise Refusal("binary")
                _, length = json.JSONDecoder().raw_decode(body.decode("latin-1"))
        try:
            return orjson.loads(body[:length]), body[length:], claimed is not None
        except orjson.JSONDecodeError:
            raise Refusal("malformed-json" if claimed is None else "binary") from None

    def _quirks_of_requests(self, document: dict[str, Any]) -> None:
        inputs = document["inputs"]
        nested = any(isinstance(it.get("data", [0])[0], list) for it in inputs if it.get("data"))
        binary = sum("parameters" in it for it in inputs)
        if (
            (self.quirk == "no-nesting" and nested)
            or (self.quirk == "no-parameters" and "conformance_note" in document.get("parameters", {}))
            or (self.quirk == "no-mixing" and 0 < binary < len(inputs))
        ):
            raise Refusal("quirk")

    def _tensor(self, it: dict[str, Any], raw: bytes | None, size: int | None) -> Tensor:
        try:
            if raw is None:
                if it["datatype"] == "BYTES" and self.quirk == "no-texts":
                    raise Refusal("no-texts")
                return from_plain(it["name"], it["datatype"], it["shape"], it["data"])
            if size is None or size != len(raw):
                raise Refusal("binary")
            return from_raw(it["name"], it["datatype"], it["shape"], raw)
        except (Fails, ValueError):
            raise Refusal("wrong-count" if raw is None else "binary") from None

    def _encode(self, document: dict[str, Any], model: Model, outputs: list[Tensor], versioned: bool) -> httpx.Response:
        default = document.get("parameters", {}).get("binary_data_output", False)
        asked = {it["name"]: it.get("parameters", {}) for it in document.get("outputs", ())}
        entries, raw = [], b""
        for tensor in outputs:
            own = asked.get(tensor.name, {})
            binary = own.get("binary_data", default)
            if self.quirk == "request-beats-output":
                binary = default or binary
            if self.quirk == "no-default" and tensor.name in asked:
                binary = own.get("binary_data", False)
            entry: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
            if binary:
                data = tensor.raw()
                if self.quirk == "bare-texts" and tensor.datatype == "BYTES":
                    data = b"".join(tensor.values.flat)
                entry["parameters"] = {"binary_data_size": len(data)}
                raw += data
            else:
                entry["data"] = tensor.plain()
            entries.append(entry)
        answer: dict[str, Any] = {"model_name": model.name, "model_version": "1", "outputs": entries}
        if "id" in document and self.quirk != "no-id":
            answer["id"] = document["id"]
        if self.quirk == "no-model-name":
            del answer["model_name"]
        if self.quirk == "another-version" and versioned:
            answer["model_version"] = "2"
        if not raw:
            return _json(200, answer)
        head = orjson.dumps(answer)
        kind = "application/json" if self.quirk == "binary-as-json" else "application/octet-stream"
        return httpx.Response(200, headers={"content-type": kind, LENGTH: str(len(head))}, content=head + raw)


def _json(status: int, document: Any) -> httpx.Response:
    return httpx.Response(status, headers={"content-type": "application/json"}, content=orjson.dumps(document))
