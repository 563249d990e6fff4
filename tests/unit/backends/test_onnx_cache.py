"""Optimised models on disk: what is found is what was kept, whatever happened to the files meanwhile."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.onnx_cache import OptimisedModels
from tests.gateway_process import ROOT

EDGE = ROOT / "deploy/models/digits-edge.onnx"


def keep(cache: OptimisedModels, key: str, content: bytes) -> None:
    with cache.writing(key) as file:
        assert file is not None
        file.write_bytes(content)


def test_what_is_kept_is_found_under_its_key_alone(tmp_path: Path) -> None:
    cache = OptimisedModels(tmp_path / "cache")
    assert cache.find("a") is None
    keep(cache, "a", b"model")
    found = cache.find("a")
    assert found is not None
    assert found.read_bytes() == b"model"
    assert cache.find("b") is None
    assert OptimisedModels.key("ab", "c") != OptimisedModels.key("a", "bc")


@given(content=st.binary(min_size=1, max_size=50), data=st.data())
def test_a_damaged_file_is_dropped(
    content: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = OptimisedModels(tmp_path_factory.mktemp("cache"))
    keep(cache, "a", content)
    found = cache.find("a")
    assert found is not None
    at = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    found.write_bytes(content[:at] if cut else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert cache.find("a") is None
    assert not found.exists()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = OptimisedModels(tmp_path)
    with contextlib.suppress(RuntimeError), cache.writing("a") as file:
        assert file is not None
        file.write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_write_the_same_one_does(tmp_path: Path) -> None:
    cache = OptimisedModels(tmp_path)
    with cache.writing("a") as first:
        assert first is not None
        first.write_bytes(b"model")
        with cache.writing("a") as second:
            assert second is None
    found = cache.find("a")
    assert found is not None
    assert found.read_bytes() == b"model"


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = OptimisedModels(tmp_path / "file" / "cache")
    with cache.writing("a") as file:
        assert file is None
    assert cache.find("a") is None


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    cache = OptimisedModels(tmp_path, most_bytes=25)
    for age, key in enumerate("cab"):
        keep(cache, key, key.encode() * 10)
        found = cache.find(key)
        if found is not None:
            os.utime(found, ns=(age, age))
    assert [key for key in "abc" if cache.find(key)] == ["a", "b"]


IS_KILLED_EVERYWHERE = """
import os, resource, signal, sys
from pathlib import Path
from backends.onnx_cache import OptimisedModels
from backends.onnx_session import CPU, Loader

model, folder = Path(sys.argv[1]), Path(sys.argv[2])
kept = OptimisedModels(folder)


def dies(prepare):
    # In a process of its own, which is gone at once: nothing is flushed, no finally runs.
    child = os.fork()
    if child == 0:
        prepare()
        Loader((CPU,), 1, Path("/"), kept).load(model)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at_call(number):
    writing, calls = False, 0

    def count(frame, event, argument):
        nonlocal writing, calls
        if event in ("c_call", "c_return", "c_exception"):
            writing = writing or argument.__name__ == "flock"
            calls += writing
            if calls > number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def killed_at_byte(number):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def check(at):
    # A start finds the folder and nothing else of who was killed, so that one start tells of all that left the same.
    left = frozenset((file.name, file.read_bytes()) for file in folder.iterdir()) if folder.exists() else None
    if left not in checked:
        for file in folder.glob("*.onnx"):
            assert kept.find(file.name.split("-")[0]) == file, (at, file, "a torn file has a whole one's name")
        assert dies(lambda: None) == 0, (at, "it starts again")
        assert len(list(folder.iterdir())) == 1, (at, list(folder.iterdir()))
        checked.add(left)
    for file in folder.iterdir():
        file.unlink()


Loader((CPU,), 1, Path("/"), None).load(model)  # what ONNX Runtime does at its first load only is not done in each fork
checked = set()
killed = 0
for number in range(10_000):
    if dies(lambda: killed_at_call(number)) == 0:
        check("not killed")
        break
    killed += 1
    check(number)
assert killed > 20, killed
for number in range(0, model.stat().st_size, 997):
    assert dies(lambda: killed_at_byte(number)) & 0x7F == signal.SIGXFSZ, number
    check(number)
assert len(checked) > 3, len(checked)
"""


def test_whoever_is_killed_at_any_call_or_byte_leaves_nothing_torn_and_starts_again(tmp_path: Path) -> None:
    """ONNX Runtime's own writes of an optimised model among them."""
    words = [sys.executable, "-c", IS_KILLED_EVERYWHERE, str(EDGE), str(tmp_path / "kept")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
