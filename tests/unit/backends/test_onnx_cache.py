"""Optimised models on disk: what is found is what was kept, whatever happened to the files meanwhile."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.onnx_cache import OptimisedModels


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
