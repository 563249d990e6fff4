"""The one extension point: kinds of backends and policies are entry points, ours and third parties' alike."""

from __future__ import annotations

import difflib
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

BACKENDS = "hybrid_router.backends"
POLICIES = "hybrid_router.policies"


_NEEDED = {BACKENDS: ("Options", "Variant", "on_device"), POLICIES: ("plan",)}
"""What a class of each group has to have before anything is made of it."""


@lru_cache(maxsize=16)
def _entries(group: str, path: tuple[str, ...]) -> EntryPoints:
    """What is installed there; looked for once, since it reads a file for every package."""
    return entry_points(group=group)


class UnknownKind(LookupError):
    """No such kind is registered; the message names those that are."""


class Registry:
    """The kinds that are registered in one entry-point group. A kind's module is imported when it is asked for.

    Args:
        group: Name of the group.

    Raises:
        ValueError: Two packages register the same kind.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._kinds: dict[str, EntryPoint] = {}
        for entry in _entries(group, tuple(sys.path)):
            other = self._kinds.get(entry.name)
            if other is not None and other.value != entry.value:
                raise ValueError(f"{group} {entry.name!r} is registered twice: {other.value} and {entry.value}")
            self._kinds[entry.name] = entry

    def names(self) -> tuple[str, ...]:
        """The registered kinds, sorted."""
        return tuple(sorted(self._kinds))

    def load(self, kind: str) -> Any:
        """The class that is registered for this kind.

        Raises:
            UnknownKind: None is, what it needs is not installed, or it lacks what such a class has to have.
        """
        entry = self._kinds.get(kind)
        if entry is None:
            close = difflib.get_close_matches(kind, self._kinds, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UnknownKind(f"{kind!r} is not a known kind, which are {', '.join(self.names())}{hint}")
        try:
            found = entry.load()
        except ImportError as error:
            raise UnknownKind(f"kind {kind!r} cannot be used here: {error}") from error
        lacking = [name for name in _NEEDED.get(self._group, ()) if not hasattr(found, name)]
        if lacking:
            raise UnknownKind(f"kind {kind!r} cannot be used here: {entry.value} has no {', '.join(lacking)}")
        return found
