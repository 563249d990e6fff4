"""Compressed bodies: read as they were, within the bound, and nothing but what they say they are."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.compression import compressed
from app.inflate import INLINE_BYTES, Inflater
from router.errors import BodyTooLarge, MalformedBody, RouterError, UnsupportedMediaType

BOUND: Final = 1 << 20
PACKERS: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
}
SIZES: Final = [0, 1, 1000, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, BOUND - 1, BOUND]

codings = pytest.mark.parametrize("coding", PACKERS)


@codings
@pytest.mark.parametrize("size", SIZES)
async def test_a_body_is_read_as_it_was(coding: bytes, size: int) -> None:
    body = (b"0123456789" * (size // 10 + 1))[:size]
    assert await Inflater(coding.upper(), BOUND).inflate(PACKERS[coding](body)) == body


@codings
@pytest.mark.parametrize("bound", [1024, INLINE_BYTES - 1, INLINE_BYTES, BOUND])
async def test_what_inflates_beyond_the_bound_is_refused(coding: bytes, bound: int) -> None:
    assert await Inflater(coding, bound).inflate(PACKERS[coding](bytes(bound))) == bytes(bound)
    with pytest.raises(BodyTooLarge, match=str(bound)):
        await Inflater(coding, bound).inflate(PACKERS[coding](bytes(bound + 1)))


async def test_a_bomb_takes_no_more_memory_than_the_bound() -> None:
    bomb = gzip.compress(bytes(200 << 20), 9)
    assert len(bomb) < 1 << 18
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            await Inflater(b"gzip", BOUND).inflate(bomb)
        assert tracemalloc.get_traced_memory()[1] < 3 * BOUND
    finally:
        tracemalloc.stop()


@codings
@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_stream_that_is_not_exactly_one_is_refused(coding: bytes, size: int) -> None:
    whole = PACKERS[coding](bytes(size))
    for content in (b"", whole[:1], whole[:-1], whole[: len(whole) // 2], whole + b"x", whole + whole, b"x" + whole):
        with pytest.raises(MalformedBody):
            await Inflater(coding, BOUND).inflate(content)


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"gzip,deflate", b"", b"\xff" * 100])
def test_another_coding_is_refused(coding: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        Inflater(coding, BOUND)


@given(st.sampled_from([*PACKERS]), st.binary(max_size=200), st.binary(max_size=50), st.integers(0, 200))
async def test_any_bytes_are_read_or_are_the_senders_fault(
    coding: bytes, body: bytes, garbage: bytes, where: int
) -> None:
    packed = PACKERS[coding](body)
    for content in (garbage, packed[:where] + garbage + packed[where:]):
        try:
            await Inflater(coding, BOUND).inflate(content)
        except RouterError as error:
            if error.http_status != 400:
                raise


@pytest.mark.parametrize(("accepted", "coding"), [(b"gzip", b"gzip"), (b"deflate", b"deflate"), (b" GZIP ", b"gzip")])
@pytest.mark.parametrize("size", [0, 100, 1 << 20])
async def test_an_answer_is_compressed_for_who_asks(accepted: bytes, coding: bytes, size: int) -> None:
    body, headers = await compressed(bytes(size), ((b"content-type", b"a/b"),), accepted)
    assert dict(headers) == {b"content-type": b"a/b", b"content-encoding": coding, b"vary": b"accept-encoding"}
    assert await Inflater(coding, BOUND).inflate(body) == bytes(size)


@pytest.mark.parametrize("accepted", [b"", b"identity", b"br", b"gzip, deflate", b"gzip;q=0", b"*", b"\xff"])
async def test_an_answer_is_left_as_it_is_for_all_others(accepted: bytes) -> None:
    headers = ((b"content-type", b"a/b"),)
    assert await compressed(b"answer", headers, accepted) == (b"answer", headers)
