"""What the fuzzers throw at the Open Inference Protocol's decoder, and what it may make of it.

An input is one line, `MODEL LENGTH`, and then a body. LENGTH is what `Inference-Header-Content-Length` says; without it
there is no such header.
"""

from __future__ import annotations

from pathlib import Path

from app.codec import oip
from router.engine import Engine
from router.errors import RouterError, UnknownModel

CORPUS = Path(__file__).parent / "corpus" / "oip"


def parts(content: bytes) -> tuple[str, bytes | None, bytes]:
    """The model, the header's value or None, and the body."""
    line, _, body = content.partition(b"\n")
    model, space, length = line.partition(b" ")
    return model.decode("latin-1"), length if space else None, body


def decode(engine: Engine, content: bytes) -> bool:
    """Has a request decoded. Returns whether it was accepted.

    Raises:
        Exception: Whatever the decoder must not raise.
    """
    model, length, body = parts(content)
    headers = {} if length is None else {oip.HEADER_LENGTH: length}
    try:
        spec = engine.model(model).spec
        request, wanted = oip.decode(body, headers, b"", model, None, engine, 0.0)
    except UnknownModel:
        return False
    except RouterError as error:
        if 400 <= error.http_status < 500 or error.http_status == 501:
            return False
        raise
    assert isinstance(request.payload, dict)
    for name, tensor in request.payload.items():
        assert spec.inputs[name].accepts(tensor.shape)
        assert tensor.dtype.kind in "OV" or tensor.flags.aligned
    assert set(wanted) <= set(spec.outputs)
    return True
