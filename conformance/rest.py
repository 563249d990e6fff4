"""A server's REST side: requests as documents, answers as tensors.

Invariants:
- Every call has the client's timeout; nothing is asked twice unless a check asks twice.
- An answer is read strictly: what is not in the protocol's form is a failure with a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from conformance.tensors import Model, Spec, Tensor, from_plain, from_raw, samples
from conformance.verdict import Fails, NotTried

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "binary_tensor_data"
BINARY_ONLY = ("FP16", "BF16")
"""Datatypes that a server may take in binary form alone: JSON has no halves of floats."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rest:
    """What the checks ask over REST.

    Attributes:
        http: The client; its base URL is the server's.
        extensions: Those that the server names.
        models: Those that it offers and describes.
        subject: The model that most checks ask.
    """

    http: httpx.Client
    extensions: frozenset[str]
    models: tuple[Model, ...]
    subject: Model

    @property
    def offers_binary(self) -> bool:
        """Whether it says that it takes and gives binary tensors."""
        return BINARY in self.extensions

    def get(self, path: str) -> httpx.Response:
        """GETs."""
        return self.http.get(path)

    def infer(self, document: Document, model: Model | None = None, version: str = "") -> Answer:
        """Asks for an inference, which must be a 200.

        Raises:
            Fails: It is not, or the answer is not in the protocol's form.
        """
        return answer_of(self.post(document, model, version))

    def post(
        self,
        document: Document,
        model: Model | None = None,
        version: str = "",
        raw: bytes = b"",
        length: str | None = None,
    ) -> httpx.Response:
        """POSTs a request for an inference.

        Args:
            document: The JSON.
            model: Which model; the subject by default.
            version: Which version, if not the server's choice.
            raw: Binary tensors.
            length: The JSON's length to claim, where that is not its length; with no binary tensors none is sent.
        """
        body = orjson.dumps(document)
        if length is None and raw:
            length = str(len(body))
        kind = "application/json" if length is None else "application/octet-stream"
        headers = {"Content-Type": kind} | ({} if length is None else {HEADER_LENGTH: length})
        path = f"{model_path(model or self.subject, version)}/infer"
        return self.http.post(path, content=body + raw, headers=headers)

    def ask(self, model: Model, rows: int = 1) -> Answer:
        """Asks a model with sample inputs, in JSON but for what JSON has no form for.

        Raises:
            Fails: No answer in the protocol's form.
            NotTried: It takes what only binary tensors carry, and these are not offered.
        """
        document, raw = self.request(model, rows)
        return answer_of(self.post(document, model, raw=raw))

    def request(self, model: Model, rows: int = 1) -> tuple[Document, bytes]:
        """The JSON and the binary tensors of a request with sample inputs, binary only where JSON will not do.

        Raises:
            NotTried: It takes or gives what only binary tensors carry, and these are not offered.
        """
        if not self.offers_binary and model.datatypes & set(BINARY_ONLY):
            raise NotTried(f"{model.name} has tensors of 16-bit floats, and the server names no binary extension")
        inputs, raw = [], b""
        for tensor in samples(model, rows):
            if tensor.datatype in BINARY_ONLY:
                inputs.append(binary_input(tensor))
                raw += tensor.raw()
            else:
                inputs.append(plain_input(tensor))
        document: Document = {"inputs": inputs}
        if any(spec.datatype in BINARY_ONLY for spec in model.outputs):
            document["outputs"] = [
                {"name": spec.name, "parameters": {"binary_data": spec.datatype in BINARY_ONLY}}
                for spec in model.outputs
            ]
        return document, raw


@dataclass(frozen=True, slots=True)
class Answer:
    """An inference's answer.

    Attributes:
        document: Its JSON.
        outputs: Its tensors, in the answer's order.
        binary: The names of those that came in binary form.
    """

    document: Document
    outputs: Mapping[str, Tensor]
    binary: frozenset[str]


def model_path(model: Model, version: str = "") -> str:
    """The path of a model, or of one of its versions."""
    path = f"/v2/models/{quote(model.name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def plain_input(tensor: Tensor, nested: bool = False) -> Document:
    """An input in JSON."""
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
        "data": tensor.plain(nested),
    }


def binary_input(tensor: Tensor) -> Document:
    """An input whose elements come after the JSON."""
    size = {"binary_data_size": len(tensor.raw())}
    return {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype, "parameters": size}


def plain_request(tensors: Sequence[Tensor], **more: Any) -> Document:
    """A request in JSON.

    Raises:
        NotTried: There is a tensor that JSON has no agreed form for.
    """
    for tensor in tensors:
        if tensor.datatype in BINARY_ONLY:
            raise NotTried(f"input {tensor.name} is {tensor.datatype}, which JSON has no agreed form for")
    return {"inputs": [plain_input(tensor) for tensor in tensors], **more}


def answer_of(response: httpx.Response) -> Answer:
    """The answer in a 200.

    Raises:
        Fails: It is no 200, or not in the protocol's form.
    """
    if response.status_code != 200:
        raise Fails(f"{response.status_code}: {excerpt(response)}")
    document, rest = _parts(response)
    outputs, binary = {}, set()
    for output in document["outputs"]:
        name, datatype, shape = output["name"], output["datatype"], output["shape"]
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[name] = from_plain(name, datatype, shape, output["data"])
        else:
            outputs[name], rest = from_raw(name, datatype, shape, rest[:size]), rest[size:]
            binary.add(name)
    if rest:
        raise Fails(f"{len(rest)} bytes follow the last output")
    return Answer(document, outputs, frozenset(binary))


def _parts(response: httpx.Response) -> tuple[Document, bytes]:
    length = response.headers.get(HEADER_LENGTH)
    whole = response.content
    head = whole if length is None else whole[: int(length)]
    document = json_of(head)
    if not isinstance(document.get("outputs"), list):
        raise Fails(f"an answer without outputs: {excerpt(response)}")
    return document, whole[len(head) :]


def json_of(content: bytes) -> Document:
    """A JSON object.

    Raises:
        Fails: It is none.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise Fails(f"no JSON: {content[:80]!r}") from None
    if not isinstance(document, dict):
        raise Fails(f"no JSON object: {content[:80]!r}")
    return document


def excerpt(response: httpx.Response) -> str:
    """The beginning of a body, for a sentence."""
    text = " ".join(response.text.split())
    return (text[:117] + "...") if len(text) > 120 else text or "an empty body"


def model_of(document: Document) -> Model:
    """A model, from the JSON of its metadata. Null is taken for left out.

    Raises:
        Fails: It is not in the protocol's form.
    """
    return Model(
        _text(document, "name"),
        tuple(map(str, document.get("versions") or ())),
        *(tuple(map(_spec, document.get(side) or ())) for side in ("inputs", "outputs")),
    )


def _spec(document: Document) -> Spec:
    name, datatype, shape = _text(document, "name"), _text(document, "datatype"), document.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise Fails(f"tensor {name} has the shape {shape!r}")
    return Spec(name, datatype, tuple(shape))


def _text(document: Document, field: str) -> str:
    value = document.get(field)
    if not isinstance(value, str) or not value:
        raise Fails(f"{field!r} is {value!r}, not a text")
    return value
