"""The copy of the policy file survives being killed, a power cut and a disk that is full, at every point of a write."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.policy_copy import PolicyCopy, sealed, unsealed
from policies.document import MAX_BYTES

ROOT = Path(__file__).parents[3]

IS_KILLED_EVERYWHERE = """
import os, resource, signal, sys
from pathlib import Path
from app.policy_copy import PolicyCopy, sealed

folder, before, after = Path(sys.argv[1]), b"version: 1\\n" * 40, b"version: 2\\n" * 50
place = folder / "state" / "p.last-good.yaml"


def dies(prepare, content):
    # In a process of its own, which is gone at once: nothing is flushed, no finally runs.
    child = os.fork()
    if child == 0:
        prepare()
        kept = PolicyCopy(place).keep(content)
        os._exit(0 if kept else 3)
    return os.waitpid(child, 0)[1]


def killed_at_call(number):
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        if event in ("c_call", "c_return", "c_exception"):
            calls += 1
            if calls > number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def killed_at_byte(number):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def full_at_byte(number):
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def found():
    return PolicyCopy(place).read()


killed = 0
for number in range(10_000):
    if dies(lambda: killed_at_call(number), before) == 0:
        break
    killed += 1
    assert found() in (None, before), (number, found())
    place.unlink(missing_ok=True)
assert killed > 20, killed
for number in range(10_000):
    if dies(lambda: killed_at_call(number), after) == 0:
        break
    assert found() in (before, after), (number, found())
    dies(lambda: None, before)
    assert found() == before
dies(lambda: None, before)
for at, ended in ((killed_at_byte, signal.SIGXFSZ), (full_at_byte, 3 << 8)):
    for number in range(0, len(sealed(after)), 7):
        assert dies(lambda: at(number), after) & 0xFF7F == ended, number
        assert found() == before, number
    if at is full_at_byte:
        assert [file.name for file in place.parent.iterdir()] == [place.name], "what could not be written is removed"
assert dies(lambda: None, after) == 0
assert found() == after
"""


def test_whoever_is_killed_at_any_call_or_byte_leaves_the_old_copy_or_the_new_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IS_KILLED_EVERYWHERE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_it_is_kept(tmp_path: Path) -> None:
    calls: list[str] = []

    def note(frame: object, event: str, function: object) -> None:
        if event == "c_call":
            calls.append(getattr(function, "__name__", ""))

    copy = PolicyCopy(tmp_path / "p.yaml")
    sys.setprofile(note)
    try:
        kept = copy.keep(b"version: 1")
    finally:
        sys.setprofile(None)
    assert kept
    assert [call for call in calls if call in ("write", "fsync", "replace")] == ["write", "fsync", "replace", "fsync"]


@given(st.binary(), st.data())
def test_a_copy_that_is_cut_or_changed_anywhere_is_none(content: bytes, data: st.DataObject) -> None:
    copy = sealed(content)
    assert unsealed(copy) == content
    assert unsealed(copy[: data.draw(st.integers(0, len(copy) - 1), "cut")]) is None
    bit = data.draw(st.integers(0, 8 * len(copy) - 1), "bit")
    changed = bytearray(copy)
    changed[bit // 8] ^= 1 << bit % 8
    assert unsealed(bytes(changed)) is None


def test_the_longest_policy_file_there_may_be_is_kept(tmp_path: Path) -> None:
    content = b"#" * MAX_BYTES
    assert PolicyCopy(tmp_path / "p.yaml").keep(content)
    assert PolicyCopy(tmp_path / "p.yaml").read() == content


def test_what_is_kept_already_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    PolicyCopy(path).keep(b"version: 1")
    before = path.stat()
    copy = PolicyCopy(path)
    copy.read()
    assert copy.keep(b"version: 1")
    assert path.stat() == before


def test_a_disk_that_takes_nothing_is_reported_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.touch()
    copy = PolicyCopy(in_the_way / "p.yaml")
    assert not copy.keep(b"version: 1")
    assert not copy.keep(b"version: 1")
    assert len(caplog.records) == 1
    in_the_way.unlink()
    assert copy.keep(b"version: 1")
    assert PolicyCopy(copy.path).read() == b"version: 1"


@pytest.mark.parametrize("kind", ["folder", "behind a file"])
def test_what_cannot_be_read_is_no_copy(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        (tmp_path / "p.yaml").mkdir()
        assert PolicyCopy(tmp_path / "p.yaml").read() is None
    else:
        (tmp_path / "p.yaml").touch()
        assert PolicyCopy(tmp_path / "p.yaml" / "p.yaml").read() is None


def test_after_a_write_that_may_have_gone_through_the_one_before_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")

    copy = PolicyCopy(tmp_path / "p.yaml")
    assert copy.keep(b"strict")
    with monkeypatch.context() as patch:
        patch.setattr("backends.whole_file.os.fsync", no_folders)
        assert not copy.keep(b"loose")
    assert copy.keep(b"strict")
    assert PolicyCopy(tmp_path / "p.yaml").read() == b"strict"
