"""What can be said of the backend without a server: which addresses and keys it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.oip_http import OipHttpBackend, OipHttpOptions
from backends.server import ServerVariant
from router.errors import BackendUnavailable
from router.model import ModelSpec, TensorSpec
from router.ports import BackendContext

SPEC = ModelSpec("m", "1", {"x": TensorSpec("float32", (-1, 2))}, {"y": TensorSpec("float32", (-1,))})


@pytest.mark.parametrize(
    "url",
    ["http://host:8080", "https://host", "http://[::1]:8000", "https://host/models/", "http://host:8080/a/b"],
)
def test_addresses_that_can_be_used(url: str) -> None:
    assert OipHttpOptions(url).url == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "host:8080", "grpc://host:8001", "http://", "http://:8080", "http://host:0", "http://host:99999"),
        *("http://user:secret@host", "http://host?key=1", "http://host#here", " http://host", "http://ho st"),
    ],
)
def test_addresses_that_cannot_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:8080"):
        OipHttpOptions(url)


@pytest.mark.parametrize("key", [None, "", " ", "two\nlines", "schlüssel"])
async def test_without_the_key_that_it_is_to_have_it_does_not_open(
    key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLOUD_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("CLOUD_KEY", key)
    backend = OipHttpBackend(OipHttpOptions("http://host:8080", "CLOUD_KEY"), BackendContext(Path()))
    with pytest.raises(BackendUnavailable, match="CLOUD_KEY"):
        await backend.open(SPEC, ServerVariant("m"))
    await backend.close()
