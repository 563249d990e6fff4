"""Makes the backends that a policy file names, ours and third parties' alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from router.deployment import BackendEntry
from router.ports import Backend, BackendContext
from router.registry import BACKENDS, Registry


def backend_maker(models_dir: Path, cache_dir: Path | None = None) -> Callable[[BackendEntry], Backend]:
    """A function that makes a backend from its entry, and does no I/O.

    Args:
        models_dir: Where relative model files are looked up.
        cache_dir: Where what can be made again may be kept; None for nowhere.
    """
    kinds = Registry(BACKENDS)
    context = BackendContext(models_dir, cache_dir)

    def make(entry: BackendEntry) -> Backend:
        backend: Backend = kinds.load(entry.kind)(entry.options, context)
        return backend

    return make
