"""Find the Triton server in a virtual environment, and lay out what it reads: its backend and the models."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

PROJECT = Path(__file__).resolve().parent.parent
DEFAULT_ENVIRONMENT = PROJECT / ".venv-cloud"
DEFAULT_REPOSITORY = PROJECT / "deploy" / "triton" / "models"
MACHINES = ("x86_64", "aarch64")
INSPECTION_TIMEOUT_S = 30

# Run by the environment's own interpreter, which need not be the version that runs the gateway.
INSPECTION = """
import importlib.metadata as metadata, json, sys, sysconfig
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "libdir": sysconfig.get_config_var("LIBDIR") or "",
    "base_prefix": sys.base_prefix,
    "site_packages": sysconfig.get_path("purelib"),
    "versions": {name: version(name) for name in ("nvidia-pytriton", "numpy", "onnxruntime", "pillow")},
}))
"""


class CloudUnavailable(Exception):
    """Why Triton can't start and what to do about it, in one sentence."""


class _Inspection(msgspec.Struct, frozen=True):
    """What INSPECTION prints."""

    python: str
    libdir: str
    base_prefix: str
    site_packages: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class CloudInstall:
    """A Triton server ready to be laid out.

    Attributes:
        server: the tritonserver executable.
        backend: directory of the Python backend's library.
        stub: the executable that runs model.py, made for the environment's Python version.
        library_path: directories for LD_LIBRARY_PATH: libpython, and the libraries that the wheel carries.
        site_packages: holds what model.py imports.
        repository: the model repository to serve.
    """

    server: Path
    backend: Path
    stub: Path
    library_path: tuple[Path, ...]
    site_packages: Path
    repository: Path

    def lay_out(self, runtime: Path) -> None:
        """Copy backend and models to a writable directory, in place of what an earlier run left there.

        Args:
            runtime: gets `backends/python/` and `models/`. Symbolic links in the repository become files.
        """
        for name in ("backends", "models"):
            shutil.rmtree(runtime / name, ignore_errors=True)
        backend = runtime / "backends" / "python"
        shutil.copytree(self.backend, backend, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(self.stub, backend)
        shutil.copytree(self.repository, runtime / "models")


def find_install(environment: Path = DEFAULT_ENVIRONMENT, repository: Path = DEFAULT_REPOSITORY) -> CloudInstall:
    """Look whether the environment holds all that a server needs.

    Args:
        environment: a virtual environment with deploy/triton/requirements.lock installed.
        repository: a Triton model repository.

    Raises:
        CloudUnavailable: the platform is not supported, or something is missing.
    """
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        raise CloudUnavailable(
            f"Triton's wheel is made for Linux on {' and '.join(MACHINES)}, not for {sys.platform} on "
            f"{platform.machine()}: run the cloud on such a machine, and name its address in the policy file"
        )
    if not repository.is_dir():
        raise CloudUnavailable(f"no Triton model repository at {repository}: run from a checkout, or name one")
    found = _inspect(environment)
    _check_versions(found, environment)
    site_packages = Path(found.site_packages)
    triton = site_packages / "pytriton" / "tritonserver"
    stub = triton / "python_backend_stubs" / found.python / "triton_python_backend_stub"
    return CloudInstall(
        server=triton / "bin" / "tritonserver",
        backend=triton / "backends" / "python",
        stub=stub,
        library_path=(_libpython_directory(found), site_packages / "nvidia_pytriton.libs"),
        site_packages=site_packages,
        repository=repository,
    )


def making_commands(environment: Path) -> str:
    """The shell commands that make the environment."""
    lock = "deploy/triton/requirements.lock"
    return (
        f"python3.11 -m venv --clear {environment} && "
        f"{environment}/bin/pip install --no-deps --require-hashes -r {lock}"
    )


def _inspect(environment: Path) -> _Inspection:
    """Ask the environment's interpreter what it is and holds."""
    python = environment / "bin" / "python"
    if not python.exists():
        raise CloudUnavailable(
            f"there is no virtual environment for Triton at {environment}; make it with: {making_commands(environment)}"
        )
    try:
        answer = subprocess.run(
            [python, "-I", "-c", INSPECTION], capture_output=True, check=True, timeout=INSPECTION_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CloudUnavailable(
            f"{python} doesn't run ({error}); make it anew with: {making_commands(environment)}"
        ) from error
    return msgspec.json.decode(answer.stdout, type=_Inspection)


def _check_versions(found: _Inspection, environment: Path) -> None:
    """Refuse an environment that lacks a package or holds one that gives wrong answers."""
    advice = f"make the environment anew with Python 3.11 or 3.12: {making_commands(environment)}"
    missing = [name for name, version in found.versions.items() if not version]
    if missing:
        raise CloudUnavailable(f"{environment} (Python {found.python}) lacks {', '.join(missing)}; {advice}")
    # The wheel's backend reads numpy's structures as version 1 lays them out; with 2 it silently sees other
    # numbers.
    if not found.versions["numpy"].startswith("1."):
        raise CloudUnavailable(
            f"{environment} has numpy {found.versions['numpy']}, "
            f"with which this Triton computes wrong results; {advice}"
        )


def _libpython_directory(found: _Inspection) -> Path:
    """Where the shared library of the environment's Python is: the stub is linked to it."""
    library = f"libpython{found.python}.so.1.0"
    for directory in (Path(found.libdir), Path(found.base_prefix) / "lib"):
        if (directory / library).exists():
            return directory
    raise CloudUnavailable(
        f"{library} is missing, which Triton's Python backend needs: apt install libpython{found.python}, "
        "or make the environment with a Python that was built with --enable-shared"
    )
