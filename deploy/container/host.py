"""What a root takes from this machine while it is built: mounts, and the way to the package mirrors."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ARCHIVES = {"Debian": "http://deb.debian.org/debian", "Debian-Security": "http://deb.debian.org/debian-security"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def run(*argv: str, env: Mapping[str, str] | None = None) -> str:
    """What the command wrote.

    Raises:
        SystemExit: It failed; the message has the end of what it wrote.
    """
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=-1, stderr=-2, text=True, errors="replace")
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-40:])
        raise SystemExit(f"{' '.join(argv)} failed with {done.returncode}:\n{end}")
    return done.stdout


def size_mb(root: Path) -> int:
    """Mebibytes on disk of the files in this file system below `root`."""
    return int(run("du", "-sxm", str(root)).split()[0])


def bind(source: Path, target: Path, options: str = "rw") -> None:
    """Shows `source` at `target` too, which is made if it is not there."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    run("mount", "--bind", str(source), str(target))
    run("mount", "-o", f"remount,bind,{options}", str(target))


def mount_devices(root: Path) -> None:
    """Mounts what every container has: /proc, a /sys to read, a small /dev, and /dev/shm."""
    run("mount", "-t", "proc", "proc", str(root / "proc"))
    run("mount", "-t", "sysfs", "-o", "ro", "sysfs", str(root / "sys"))
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev"))
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        bind(Path("/dev") / name, root / "dev" / name)
    (root / "dev/fd").symlink_to("/proc/self/fd")
    (root / "dev/shm").mkdir()
    run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev/shm"))


def mount_volume(folder: Path) -> None:
    """Mounts an empty file system that belongs to whoever the image gave the folder to, as an engine's volumes do."""
    owner = folder.stat()
    options = f"mode={owner.st_mode & 0o7777:o},uid={owner.st_uid},gid={owner.st_gid}"
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))


class Mirrors:
    """How this machine reaches the package archives, for the roots to reach them the same way.

    Args:
        folder: Where to keep what the roots are shown of it; made here.

    Attributes:
        archives: The address of each Debian archive.
        env: Environment variables for the commands that build.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._paths = [Path("/etc/resolv.conf")]
        self.env = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        self._ask_pip()
        self.archives = self._ask_apt()

    def _ask_pip(self) -> None:
        for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
            name, _, value = line.partition("=")
            if name.startswith((":env:.", "global.", "install.")):
                self.env[f"PIP_{name.rpartition('.')[2].upper().replace('-', '_')}"] = ast.literal_eval(value)
        self.env.pop("PIP_CACHE_DIR", None)
        certificates = self.env.pop("PIP_CERT", None) or os.environ.get("SSL_CERT_FILE")
        if certificates and Path(certificates).is_file():
            # Not where it is here: a package of the image may have to write there.
            self.env |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), "/run/host/certificates")
            (self._folder / "certificates").write_bytes(Path(certificates).read_bytes())
        words = " ".join(value for name, value in self.env.items() if name.startswith("PIP_")).split()
        # An index on disk refers to files beside its folder.
        paths = [Path(word) for word in words if word.startswith("/")]
        paths += [Path(word.removeprefix("file://")).parent for word in words if word.startswith("file:///")]
        self._paths += [path for path in paths if path.exists() and path != Path("/")]

    def _ask_apt(self) -> dict[str, str]:
        kinds = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::ForceIPv")
        settings = [line for line in run("apt-config", "dump").splitlines() if line.startswith(kinds)]
        if (self._folder / "certificates").exists():
            settings.append('Acquire::https::CaInfo "/run/host/certificates";')
        (self._folder / "apt.conf").write_text("\n".join(settings) + "\n")
        self.env["APT_CONFIG"] = "/run/host/apt.conf"
        known = run("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages").split("\n")
        addresses = dict(line.split()[:2] for line in known if len(line.split()) == 2)
        return {label: addresses.get(label, address) for label, address in ARCHIVES.items()}

    def show_to(self, root: Path, suite: str) -> None:
        """Lets the commands in a root use them. Leaves empty mount points there, and the sources of apt."""
        lines = [f"{self.archives['Debian']} {suite} main", f"{self.archives['Debian']} {suite}-updates main"]
        lines.append(f"{self.archives['Debian-Security']} {suite}-security main")
        sources = "".join(f"deb [signed-by={KEYRING}] {line}\n" for line in lines)
        (root / "etc/apt/sources.list").write_text(sources)
        bind(self._folder, root / "run/host", "ro")
        for path in self._paths:
            bind(path.resolve(), root / str(path).lstrip("/"), "ro")
