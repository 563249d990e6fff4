"""Loads a model file into an ONNX Runtime session, or says in plain words why it cannot be.

Invariants:
- Nothing is loaded that is not expected to fit into the memory that is free.
- Only the execution providers that are listed run any part of the model. Which ones do is asked of the session, not
  taken from the wish.
"""

from __future__ import annotations

import logging
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.memory import check_room, free_memory
from backends.onnx_cache import OptimisedModels
from backends.onnx_file import ModelFile, NotAModel, digest, read_model_file
from backends.quiet_onnxruntime import ort
from router.errors import BackendFailed, BackendUnavailable
from router.model import Tensor, Tensors, TensorSpec

log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"

ADVICE = "Quantise it (hybrid-router models quantize), serve it from the cloud, or free memory."

ONNX_TYPES = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bfloat16)": "bfloat16",
    "tensor(string)": "string",
}

PLAIN_REASONS = (
    (
        r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)",
        r"it uses opset \1 of \2, and ONNX Runtime {version} knows up to \3. Export it with opset \3 or less.",
    ),
    (
        r"No Op registered for (\S+) with domain_version of (\d+)",
        r"ONNX has no operator \1 in opset \2. Export it with the opset that has it.",
    ),
    (
        r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op",
        r"it uses the operator \1, which ONNX Runtime {version} does not have. Export it without it.",
    ),
    (
        r"Could not find an implementation for (\w+)\((\d+)\)",
        r"{provider} has no implementation of \1 (opset \2) for the types that it uses. Export it otherwise.",
    ),
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        r"its IR version is \1, and ONNX Runtime {version} reads up to \2. Save it with IR version \2 or less.",
    ),
    (r"Protobuf parsing failed", r"it is no ONNX model, or it is damaged."),
    (
        r"fallback to CPU EP has been explicitly disabled",
        r"{provider} cannot run all of it, and {cpu} is not among its providers. Add it there to allow that.",
    ),
)
"""What ONNX Runtime says, and what it means for whoever named the file."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory, and what is known of how it runs.

    Args:
        session: The session.
        sha256: Digest of the model file.
        placed: How many operators each execution provider runs, most first.
        missing: Providers that were preferred to those that run it, and were not got.
        from_cache: Whether it was optimised before and read from the cache.
    """

    session: ort.InferenceSession
    sha256: str
    placed: Mapping[str, int]
    missing: tuple[str, ...]
    from_cache: bool

    @property
    def provider(self) -> str:
        """The execution provider that runs most of it."""
        return next(iter(self.placed))


@dataclass(frozen=True, slots=True)
class Loader:
    """How models are loaded.

    Args:
        providers: Execution providers in order of preference; no other is used.
        threads: Threads that one run may use; 0 is one per core.
        root: The root of the file system, for what the kernel says of memory and processor.
        cache: Where optimised models are kept, if anywhere.
        keep_run_memory: Whether a session keeps the memory that its largest run took.
    """

    providers: tuple[str, ...]
    threads: int
    root: Path
    cache: OptimisedModels | None
    keep_run_memory: bool = True

    def load(self, path: Path) -> Loaded:
        """Loads a model file.

        Raises:
            BackendUnavailable: It is missing, does not fit, or cannot be run here; the sentence says what to do.
        """
        file = checked_file(path)
        check_fit(file, self.root)
        available = self._available(path)
        sha256 = digest(path)
        key = self._key(file, sha256)
        kept = self.cache.find(key) if self.cache is not None and key else None
        if self.cache is not None and kept is not None:
            try:
                return self._loaded(self._session(kept, available, optimise=False), sha256, from_cache=True)
            except Exception as error:  # whatever is wrong with it, the model itself is still there
                log.warning("%s cannot be loaded and is dropped: %s", kept, error)
                self.cache.drop(kept)
        try:
            session = self._fresh(file, available, key)
        except Exception as error:
            raise BackendUnavailable(f"{path.name} cannot be run here: {self._plainly(error)}") from error
        return self._loaded(session, sha256, from_cache=False)

    def settings(self) -> ort.SessionOptions:
        """What every session is set to."""
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.enable_cpu_mem_arena = settings.enable_mem_pattern = self.keep_run_memory
        # Spinning threads would take the cores that the event loop needs.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 4
        return settings

    def _fresh(self, file: ModelFile, available: Sequence[str], key: str) -> ort.InferenceSession:
        """A session from the model file itself; the optimised model is kept where there is memory and disk for it."""
        free = free_memory(self.root)
        if self.cache is None or not key or (free is not None and free.bytes < file.optimising_bytes):
            return self._session(file.path, available, file.external)
        try:
            with self.cache.writing(key) as unfinished:
                return self._session(file.path, available, file.external, keep_in=unfinished)
        except Exception as error:  # a full disk, or the model itself: the next try tells
            log.info("%s could not be loaded while its optimised form was kept: %s", file.path, error)
            return self._session(file.path, available, file.external)

    def _session(
        self,
        path: Path,
        available: Sequence[str],
        external: Sequence[str] = (),
        *,
        optimise: bool = True,
        keep_in: Path | None = None,
    ) -> ort.InferenceSession:
        settings = self.settings()
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if CPU not in available:
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if not optimise:
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if keep_in is not None:
            settings.optimized_model_filepath = str(keep_in)
        if external:
            # It would map these files: whoever wrote into one would change the version in force, or end the process.
            weights = [(path.parent / name).read_bytes() for name in external]
            settings.add_external_initializers_from_files_in_memory(list(external), weights, list(map(len, weights)))
        return ort.InferenceSession(str(path), settings, providers=list(available))

    def _available(self, path: Path) -> list[str]:
        """Those of the providers that this build of ONNX Runtime has.

        Raises:
            BackendUnavailable: It has none of them.
        """
        known = ort.get_available_providers()
        available = [provider for provider in self.providers if provider in known]
        if not available:
            raise BackendUnavailable(
                f"{path.name} is to run on {' or '.join(self.providers)}, and this ONNX Runtime has "
                f"{', '.join(known)}. Install a build that has it, or add {CPU} to the backend's providers."
            )
        return available

    def _key(self, file: ModelFile, sha256: str) -> str:
        """What the optimised model is kept under; empty where it cannot be.

        Weights in other files are not part of the digest, and other providers compile in ways of their own.
        """
        if file.external or self.providers != (CPU,):
            return ""
        return OptimisedModels.key(sha256, ort.__version__, CPU, platform.machine(), _processor(self.root))

    def _loaded(self, session: ort.InferenceSession, sha256: str, *, from_cache: bool) -> Loaded:
        placed: Counter[str] = Counter()
        for part in session.get_provider_graph_assignment_info():
            placed[part.ep_name] += len(part.get_nodes())
        order = dict(placed.most_common()) or {session.get_providers()[0]: 0}
        first = next((at for at, provider in enumerate(self.providers) if provider in order), 0)
        return Loaded(session, sha256, order, self.providers[:first], from_cache)

    def _plainly(self, error: Exception) -> str:
        said = " ".join(str(error).split())
        for pattern, sentence in PLAIN_REASONS:
            if found := re.search(pattern, said):
                return found.expand(sentence.format(version=ort.__version__, provider=self.providers[0], cpu=CPU))
        return said or type(error).__name__


def answers(session: ort.InferenceSession, inputs: Tensors) -> dict[str, Tensor]:
    """All outputs of a session.

    Raises:
        BackendFailed: It does not run.
    """
    names = [node.name for node in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as error:  # it raises whatever its operators raise
        raise BackendFailed(f"ONNX Runtime failed: {' '.join(str(error).split())}") from error


def checked_file(path: Path) -> ModelFile:
    """What a model file says of itself.

    Raises:
        BackendUnavailable: It is missing or no model, or weights beside it are missing.
    """
    if not path.is_file():
        raise BackendUnavailable(f"The model file {path} does not exist.")
    try:
        file = read_model_file(path)
    except NotAModel as error:
        raise BackendUnavailable(f"{error}. Copy it again, or export the model anew.") from None
    except OSError as error:
        raise BackendUnavailable(f"{path} cannot be read: {error.strerror}.") from None
    if file.missing:
        raise BackendUnavailable(f"{path} has its weights in {', '.join(file.missing)}, which is not beside it.")
    return file


def check_fit(file: ModelFile, root: Path) -> None:
    """Holds what a model needs against the memory that is free.

    Raises:
        BackendUnavailable: It would not fit.
    """
    check_room(file.path.name, file.file_bytes + file.external_bytes, file.needed_bytes, root, ADVICE)


def check_signature(file: str, found: Sequence[Any], declared: Mapping[str, TensorSpec]) -> None:
    """Raises BackendUnavailable unless the file has every declared tensor, in type and shape."""
    by_name = {node.name: node for node in found}
    for name, spec in declared.items():
        node = by_name.get(name)
        if node is None:
            raise BackendUnavailable(f"{file} has no tensor {name!r}; it has {', '.join(by_name)}.")
        dtype, shape = dtype_and_shape(node)
        fits = len(shape) == len(spec.shape) and all(
            wanted == actual or actual == -1 for wanted, actual in zip(spec.shape, shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise BackendUnavailable(
                f"{file} has {name!r} as {dtype} {list(shape)}; the policy file says {spec.dtype} {list(spec.shape)}."
            )


def dtype_and_shape(node: Any) -> tuple[str, tuple[int, ...]]:
    """Those of a session's tensor in our words; a type that has none among them keeps ONNX Runtime's."""
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return ONNX_TYPES.get(node.type, node.type), shape


def _processor(root: Path) -> str:
    """What the processor can do, by the kernel: an optimised model may use all of it."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
