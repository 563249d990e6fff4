"""An answer that never ends does not hold up the conformance kit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from conformance.bounded import BoundedTransport


class Dribble(httpx.SyncByteStream):
    """Pieces one after the other; remembers that it was closed."""

    closed = False

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from [b"."] * self._pieces

    def close(self) -> None:
        self.closed = True


def get(stream: Dribble, timeout_s: float) -> httpx.Response:
    """Asks on a clock that goes on by a second with every look at it."""
    ticks = count()
    transport = BoundedTransport(
        httpx.MockTransport(lambda request: httpx.Response(200, stream=stream)), timeout_s, lambda: next(ticks)
    )
    with httpx.Client(transport=transport) as http:
        return http.get("http://server")


def test_an_answer_in_time_is_whole() -> None:
    stream = Dribble(3)
    assert get(stream, 10.0).content == b"..."
    assert stream.closed


def test_an_answer_that_does_not_end_is_given_up() -> None:
    stream = Dribble(1_000_000)
    with pytest.raises(httpx.ReadTimeout, match="does not end"):
        get(stream, 10.0)
    assert stream.closed
