"""What a drill ran on and with, in words."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PACKAGES = ("hybrid-router", "onnxruntime", "tritonclient", "uvicorn", "aiohttp", "numpy")


def describe_machine() -> dict[str, str]:
    """Processor, memory, load, and the versions that matter, by name."""
    return {
        "processor": f"{_processor()}, {platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "busy at the start": f"{os.getloadavg()[0]:.2f} processes on average over a minute",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "packages": ", ".join(_versions()),
    }


def _processor() -> str:
    """The processor's name; a Raspberry Pi gives that of the board instead."""
    described = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        described[name.strip().lower()] = value.strip()
    return described.get("model name") or described.get("model") or "unknown processor"


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            yield f"{package} from a source tree"
