"""Carries out the instructions of a Dockerfile, each stage in a Debian root of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from deploy.container.dockerfile import Context, Instruction
from deploy.container.host import Mirrors, bind, mount_devices, run, size_mb

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the official slim image leaves out, so that sizes compare, and does without, so that packages install faster.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists")
SLIM = {
    "etc/dpkg/dpkg.cfg.d/docker": "".join(f"path-exclude /{folder}/*\n" for folder in LEFT_OUT[:3]),
    "etc/apt/apt.conf.d/docker-clean": 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
    'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n',
    "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
}


@dataclass
class Stage:
    """A root, and what the instructions so far have declared for the commands that run in it."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` in the root as the stage's user."""
        return ["chroot", f"--userspec={self.user}", "--groups=", str(self.root), "env", f"-C{self.workdir}", *argv]

    def assignments(self, text: str) -> dict[str, str]:
        """`NAME=value …` with the variables in it replaced."""
        variables = self.args | self.env
        pairs = (word.partition("=") for word in shlex.split(text))
        return {
            name: re.sub(r"\$\{?(\w+)\}?", lambda variable: variables.get(variable[1], ""), value)
            for name, _, value in pairs
        }


class Build:
    """One build. Needs root, and a mount namespace of its own: it unmounts nothing.

    Args:
        project: The folder with the Dockerfile.
        work: An empty folder for the roots.
        cache: Where the base and what pip downloads stay for the next time.

    Attributes:
        stage: The stage that is being built; at the end, the image.
        base_mb: The size of what it started from.
    """

    def __init__(self, project: Path, work: Path, cache: Path) -> None:
        self._work, self._cache = work, cache
        self._context = Context(project)
        self._mirrors = Mirrors(work / "host")
        self._stages: dict[str, Stage] = {}
        self.stage: Stage
        self.base_mb = 0

    def carry_out(self, instruction: Instruction) -> None:
        """Carries out one instruction.

        Raises:
            SystemExit: It failed, or is one that this project's Dockerfile had no use for so far.
        """
        began = time.monotonic()
        act = getattr(self, f"_{instruction.name.lower()}", None)
        if act is None or instruction.flags.keys() - {"from", "interval", "timeout", "start-period", "retries"}:
            raise SystemExit(f"this exercise does not know {instruction}: teach it, or do without")
        act(instruction)
        print(f"{instruction.name} {instruction.value[:90]}  [{time.monotonic() - began:.1f} s]", flush=True)

    def _from(self, instruction: Instruction) -> None:
        image, _, name = instruction.value.partition(" AS ")
        suite = re.fullmatch(r"debian:(\w+)-slim", image)
        if not suite:
            raise SystemExit(f"FROM {image}: this exercise can only make debian:SUITE-slim")
        name = name or str(len(self._stages))
        root = self._work / name
        root.mkdir()
        run("tar", "-xpf", str(self._base(suite[1])), "--numeric-owner", "-C", str(root))
        self.stage = self._stages[name] = Stage(root)
        self.base_mb = size_mb(root)
        self._mirrors.show_to(root, suite[1])
        mount_devices(root)
        downloads = self._cache / "pip"
        downloads.mkdir(exist_ok=True)
        bind(downloads, root / "root/.cache/pip")

    def _base(self, suite: str) -> Path:
        tarball = self._cache / f"{suite}-{run('dpkg', '--print-architecture').strip()}.tar"
        if not tarball.exists():
            if not shutil.which("debootstrap"):
                raise SystemExit("debootstrap is missing: `apt-get install debootstrap`, then try again")
            root = self._work / "base"
            run("debootstrap", "--variant=minbase", suite, str(root), self._mirrors.archives["Debian"])
            for folder in LEFT_OUT:
                shutil.rmtree(root / folder)
                (root / folder).mkdir()
            for name, text in SLIM.items():
                (root / name).write_text(text)
            unfinished = tarball.with_suffix(f".{os.getpid()}")
            run("tar", "--numeric-owner", "-cpf", str(unfinished), "-C", str(root), ".")
            unfinished.rename(tarball)
        return tarball

    def _arg(self, instruction: Instruction) -> None:
        self.stage.args |= self.stage.assignments(instruction.value)

    def _env(self, instruction: Instruction) -> None:
        self.stage.env |= self.stage.assignments(instruction.value)

    def _label(self, instruction: Instruction) -> None:
        self.stage.assignments(instruction.value)

    def _workdir(self, instruction: Instruction) -> None:
        self.stage.workdir = instruction.value
        (self.stage.root / instruction.value.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _copy(self, instruction: Instruction) -> None:
        *sources, destination = instruction.value.split()
        target = self.stage.root / os.path.join(self.stage.workdir, destination).lstrip("/")
        for source in sources:
            if "from" in instruction.flags:
                target.mkdir(parents=True)
                run("cp", "-a", f"{self._stages[instruction.flags['from']].root}{source}/.", str(target))
                continue
            files = list(self._context.copies(source))
            if not files:
                raise SystemExit(f"COPY {source}: there is no such file, or .dockerignore holds it back")
            for file, below in files:
                place = target / below
                if below == Path() and destination.endswith("/"):
                    place = target / file.name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, place)

    def _run(self, instruction: Instruction) -> None:
        env = self._mirrors.env | {"HOME": "/root"} | self.stage.args | self.stage.env
        run(*self.stage.command("/bin/sh", "-c", instruction.value), env=env)

    def _user(self, instruction: Instruction) -> None:
        self.stage.user = instruction.value

    def _volume(self, instruction: Instruction) -> None:
        self.stage.volumes.append(instruction.value)

    def _expose(self, instruction: Instruction) -> None:
        for port in instruction.value.split():
            int(port)

    def _healthcheck(self, instruction: Instruction) -> None:
        self.stage.healthcheck = json.loads(instruction.value.removeprefix("CMD"))

    def _entrypoint(self, instruction: Instruction) -> None:
        self.stage.entrypoint = json.loads(instruction.value)

    def _cmd(self, instruction: Instruction) -> None:
        self.stage.cmd = json.loads(instruction.value)
