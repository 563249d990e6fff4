"""Loading a model: which provider runs it, what does not fit, what cannot run, and what the cache gives."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.onnx import OnnxBackend, OnnxOptions, OnnxVariant
from backends.onnx_cache import OptimisedModels
from backends.onnx_session import CPU, Loader
from router.errors import BackendUnavailable
from router.model import ModelSpec, TensorSpec
from router.ports import BackendContext
from tests.gateway_process import ROOT

EDGE = ROOT / "deploy/models/digits-edge.onnx"
HERE = Path("/")
HAILO, AZURE = "HailoExecutionProvider", "AzureExecutionProvider"
WIDTH = 4000


def loader(*providers: str, root: Path = HERE, cache: OptimisedModels | None = None) -> Loader:
    return Loader(providers or (CPU,), 1, root, cache)


def refusal(path: Path, *providers: str, root: Path = HERE) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        loader(*providers, root=root).load(path)
    return caught.value.detail


def save(path: Path, operator: str = "Relu", opset: int = 17, domain: str = "", ir: int = 8) -> Path:
    """A model of one operator."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(helper.make_graph([node], "g", tensors[:1], tensors[1:]), opset_imports=opsets)
    model.ir_version = ir
    path.write_bytes(model.SerializeToString())
    return path


def save_large(path: Path) -> Path:
    """A model of 64 MB."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    weights = numpy_helper.from_array(np.ones((WIDTH, WIDTH), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_cpu_runs_it_where_nothing_else_is_asked_for() -> None:
    loaded = loader().load(EDGE)
    assert (loaded.provider, loaded.missing) == (CPU, ())
    assert sum(loaded.placed.values()) >= 5


@pytest.mark.parametrize("wanted", [HAILO, AZURE])
def test_a_preferred_provider_that_does_not_run_it_is_named(wanted: str) -> None:
    """One is not in this build; the other is, and takes none of the model's operators."""
    loaded = loader(wanted, CPU).load(EDGE)
    assert (loaded.provider, loaded.missing) == (CPU, (wanted,))


RUNS_ONCE = """
import ctypes, os, sys
from pathlib import Path
import numpy as np
from backends.onnx import OnnxOptions, loader_of
session = loader_of(OnnxOptions(keep_run_memory=sys.argv[2] == "keep"), Path("/"), None).load(Path(sys.argv[1])).session
session.run(None, {"x": np.zeros((4_000_000, 4), np.float32)})
ctypes.CDLL(None).malloc_trim(0)
print(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
"""


def test_the_memory_of_the_largest_run_is_kept_or_given_back_as_the_option_says(tmp_path: Path) -> None:
    def resident_bytes(option: str) -> int:
        words = [sys.executable, "-c", RUNS_ONCE, str(save(tmp_path / "m.onnx")), option]
        return int(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    assert resident_bytes("keep") - resident_bytes("give back") > 48e6, "the output took 64 MB"


def test_a_provider_that_was_not_listed_runs_nothing() -> None:
    assert "this ONNX Runtime has" in refusal(EDGE, HAILO)
    assert f"{AZURE} cannot run all of it" in refusal(EDGE, AZURE)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: save(path, opset=99), "opset 99 of ai.onnx.*knows up to"),
        (lambda path: save(path, "Frobnicate"), "no operator Frobnicate in opset 17"),
        (lambda path: save(path, "Frobnicate", domain="my.own"), "uses the operator my.own:Frobnicate"),
        (lambda path: save(path, ir=99), "IR version is 99.*reads up to"),
    ],
)
def test_what_cannot_run_is_refused_in_plain_words(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    path = make(tmp_path / "model.onnx")
    with pytest.raises(BackendUnavailable, match=words):
        loader().load(path)


def test_what_does_not_fit_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 100000 kB\n")
    path = save_large(tmp_path / "large.onnx")
    sentence = refusal(path, root=tmp_path)
    assert "does not fit" in sentence
    assert "64 MB" in sentence
    assert "102 MB are free on this machine" in sentence
    assert "models quantize" in sentence
    assert loader(root=tmp_path).load(EDGE).provider == CPU


def test_an_optimised_model_is_loaded_again_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    cache = OptimisedModels(tmp_path)
    inputs = {"pixels": np.eye(3, 64, dtype=np.float32)}
    first, second = loader(cache=cache).load(EDGE), loader(cache=cache).load(EDGE)
    assert (first.from_cache, second.from_cache) == (False, True)
    for one, other in zip(first.session.run(None, inputs), second.session.run(None, inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    assert not loader(cache=cache).load(EDGE).from_cache
    assert loader(cache=cache).load(EDGE).from_cache
    assert loader(HAILO, CPU, cache=cache).load(EDGE).from_cache is False, "other providers, other compilation"


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert loader(cache=OptimisedModels(tmp_path / "file/cache")).load(EDGE).provider == CPU


async def test_memory_is_free_once_a_model_is_closed(tmp_path: Path) -> None:
    save_large(tmp_path / "large.onnx")
    tensor = TensorSpec("float32", (-1, WIDTH))
    backend = OnnxBackend(OnnxOptions(max_batch_rows=4), BackendContext(tmp_path))
    servable = await backend.open(ModelSpec("large", "1", {"x": tensor}, {"y": tensor}), OnnxVariant("large.onnx"))
    held = resident_mb()
    await servable.close()
    del servable
    await asyncio.sleep(0)
    freed = held - resident_mb()
    await backend.close()
    assert freed > 50, "without a collection of garbage: what was there at the start is never collected"


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_whoever_writes_into_a_weights_file_changes_nothing_that_is_loaded(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((256, 256), np.float32), "w")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 256]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    session = loader().load(path).session
    x = np.ones((1, 256), np.float32)
    before = session.run(None, {"x": x})[0].tolist()
    assert before == [[256.0] * 256]
    (tmp_path / "weights.bin").write_bytes(b"")  # which ended the process where the file was mapped
    assert session.run(None, {"x": x})[0].tolist() == before
