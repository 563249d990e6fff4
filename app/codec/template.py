"""Pieces of JSON that are the same in many answers, with a place for each number that is not."""

from __future__ import annotations

from functools import lru_cache

import orjson


def opened(document: dict[str, object]) -> bytes:
    """An object that more is to be added to, as part of a template for `%`."""
    return orjson.dumps(document)[:-1].replace(b"%", b"%%") + b","


@lru_cache(maxsize=1024)
def shortest(number: float) -> bytes:
    """A number in the fewest digits that give it back; prices repeat."""
    return orjson.dumps(number)
