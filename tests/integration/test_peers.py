"""MLServer and KServe's model server, the real ones, as backends: `make peers` installs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from backends.server import ServerVariant
from router.errors import BackendError, BackendUnavailable
from router.model import Tensor
from router.ports import Servable
from tests.contract.backends import MODELS, call, oip_http, pixels
from tests.contract.test_backends import fits, soon
from tests.peer_servers import Peer, kserve, mlserver, serving

EDGE_CORRECT = 528
"""How many of the held-out digits the edge model gets right, by deploy/models/accuracy.json."""


@pytest.fixture(scope="module", params=[mlserver, kserve], ids=["mlserver", "kserve"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where each of them serves."""
    make: Callable[[], Peer] = request.param
    peer = make()
    with serving(peer):
        yield peer.url


@asynccontextmanager
async def asking(url: str, model: str = "digits") -> AsyncIterator[Servable]:
    """A model of that server, closed afterwards."""
    backend = oip_http(url).backend()
    try:
        yield await backend.open(MODELS["digits"].spec, ServerVariant(model))
    finally:
        await backend.close()


async def test_it_answers_as_the_model_does(url: str, holdout: tuple[Tensor, Tensor]) -> None:
    given, labels = holdout
    async with asking(url) as digits:
        await digits.probe(soon(), synthetic=False)
        await digits.probe(soon(), synthetic=True)
        reply = await digits.infer(pixels(given), soon())
        fits(reply, "digits", len(labels))
        assert int((reply.outputs["label"] == labels).sum()) == EDGE_CORRECT
        fits(await digits.infer(pixels(given[:1]), soon()), "digits", 1)


async def test_what_it_does_not_take_is_a_backend_error_and_the_next_call_works(url: str) -> None:
    async with asking(url) as digits:
        for wrong in (np.zeros((1, 63), np.float32), np.zeros((1, 64), np.int64)):
            with pytest.raises(BackendError):
                await digits.infer(call({"pixels": wrong}), soon())
        fits(await digits.infer(pixels(np.zeros((1, 64))), soon()), "digits", 1)


async def test_a_model_that_it_does_not_have_is_away(url: str) -> None:
    async with asking(url, "no-such-model") as servable:
        for synthetic in (False, True):
            with pytest.raises(BackendUnavailable):
                await servable.probe(soon(), synthetic=synthetic)
