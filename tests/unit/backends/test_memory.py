"""How much memory is left, by what kernels write: fixtures under a root of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.memory import FreeMemory, free_memory

MACHINE = "free on this machine"
GROUP = "left under the control group's limit"


def write(root: Path, **files: str) -> None:
    """Writes files by path; a double underscore stands for a slash, a single one stays."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def group(root: Path, where: str, limit: str, used: int, cached: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / where
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cached}\ninactive_file {cached}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, proc__meminfo="MemTotal:  8000 kB\nMemFree:  100 kB\nMemAvailable:   4000 kB\nHugePages_Total: 0\n")
    return tmp_path


def test_the_machine_bounds_it_where_no_group_does(root: Path) -> None:
    assert free_memory(root) == FreeMemory(4000 * 1024, MACHINE)
    write(root, proc__self__cgroup="0::/system.slice/gateway.service\n")
    group(root, "system.slice/gateway.service", "max", 10)
    assert free_memory(root) == FreeMemory(4000 * 1024, MACHINE)


def test_the_tightest_group_on_the_way_up_bounds_it(root: Path) -> None:
    write(root, proc__self__cgroup="1:name=systemd:/old\n0::/outer/inner\n")
    group(root, "outer/inner", "3000000", 1000000, cached=500000)
    assert free_memory(root) == FreeMemory(2500000, GROUP)
    group(root, "outer", "1500000", 1000000)
    assert free_memory(root) == FreeMemory(500000, GROUP)
    group(root, "outer", "900000", 1000000)
    assert free_memory(root) == FreeMemory(0, GROUP)


def test_in_a_namespace_of_its_own_the_group_is_the_top(root: Path) -> None:
    write(root, proc__self__cgroup="0::/\n")
    group(root, "", "2000", 500)
    assert free_memory(root) == FreeMemory(1500, GROUP)


def test_a_kernel_that_does_not_tell_bounds_nothing(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None
