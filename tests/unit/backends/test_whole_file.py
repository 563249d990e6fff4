"""A file that cannot be written whole stays what it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.whole_file import write_whole


def test_it_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"first", b"second, and longer", b""):
        write_whole(file, content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_through_a_link_the_file_itself_is_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"before")
    link.symlink_to(file)
    write_whole(link, b"after")
    assert link.is_symlink()
    assert file.read_bytes() == b"after"


def test_what_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")
    program = (
        "import resource, signal, sys; from pathlib import Path; from backends.whole_file import write_whole\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "write_whole(Path(sys.argv[1]), b'x' * 4096)"
    )
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True)
    assert f"File too large: '{file}'" in done.stderr
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_process_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")
    program = (
        "import os, signal, sys; from pathlib import Path; from backends import whole_file\n"
        "whole_file.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "whole_file.write_whole(Path(sys.argv[1]), b'x' * 4096)"
    )
    assert subprocess.run([sys.executable, "-c", program, file]).returncode == -9
    assert file.read_bytes() == b"before"


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        write_whole(pipe, b"content")
        assert reader.communicate(timeout=10)[0] == b"content"
    with pytest.raises(OSError, match="No space left"):
        write_whole(Path("/dev/full"), b"content")
