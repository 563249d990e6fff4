"""Builds and runs the Dockerfile where there is no container engine: `python -m deploy.container.exercise`.

Needs Linux, root (it mounts, and changes roots) and, the first time, debootstrap. Each stage becomes a Debian root of
its own. The last one is mounted read-only, and the gateway runs in it as the image's user, as the first process of its
process namespace, in a network of its own.

It covers what this Dockerfile uses and knows nothing of layers, registries, resource limits or platforms, so it does
not replace the build in CI. Everything happens in namespaces that end with this program, however it ends, and so does
each mount; only then are the roots removed, when nothing of this machine can lie below them any more.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from deploy.container.build import Build, Stage
from deploy.container.dockerfile import parse
from deploy.container.host import bind, mount_devices, mount_volume, run, size_mb

PROJECT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybrid-router"
GATEWAY = "http://127.0.0.1:8080"
KEY = {"HYBRID_ROUTER_API_KEY": "only-for-this-exercise"}
CLONE_NEWNET = 0x40000000
TOOLS = ("apt-config", "apt-get", "chroot", "dpkg", "ip", "mount", "setpriv", "unshare")


def main() -> int:
    """The command line."""
    summary, details = (__doc__ or "").split("\n\n", 1)
    parser = argparse.ArgumentParser("exercise", description=summary, epilog=details)
    parser.add_argument("--cache", type=Path, default=CACHE, help="keeps the Debian base, and what pip downloads")
    parser.add_argument("--refresh", action="store_true", help="make the Debian base anew")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # given to itself, inside the namespaces
    options = parser.parse_args()
    if options.work:
        exercise(options.work, options.cache)
        return 0
    if os.geteuid() != 0:
        sys.exit("this exercise needs root, as it mounts file systems and changes roots: run it with sudo")
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        sys.exit(f"this exercise needs a Debian with util-linux and iproute2; missing: {', '.join(missing)}")
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.refresh:
        for tarball in options.cache.glob("*.tar"):
            tarball.unlink()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(prefix="hybrid-router-") as work:
        namespaces = ["unshare", "--mount", "--propagation=private", "--pid", "--mount-proc", "--kill-child"]
        itself = [sys.executable, "-m", "deploy.container.exercise", "--work", work, "--cache", str(options.cache)]
        # Each dies with its parent, so that not even SIGKILL leaves a mount or a process.
        return subprocess.run(["setpriv", "--pdeathsig=KILL", *namespaces, *itself], cwd=PROJECT).returncode


def exercise(work: Path, cache: Path) -> None:
    """Builds the image and checks that it does what it promises.

    Raises:
        SystemExit: It does not; the message says what.
    """
    build = Build(PROJECT, work, cache)
    for instruction in parse((PROJECT / "Dockerfile").read_text()):
        build.carry_out(instruction)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    run("ip", "link", "set", "lo", "up")
    root = work / "read-only"
    bind(build.stage.root, root, "ro")
    print(f"the image adds {size_mb(root) - build.base_mb} MB to a base of {build.base_mb} MB")
    mount_devices(root)
    for volume in build.stage.volumes:
        mount_volume(root / volume.lstrip("/"))
    image = replace(build.stage, root=root)
    expect("the root is read-only", bool(os.statvfs(root).f_flag & os.ST_RDONLY))
    expect("its health check fails while nothing runs", health(image) != 0)
    refuse(image)
    serve(image)


def start(image: Stage, **env: str) -> subprocess.Popen[str]:
    """Starts ENTRYPOINT and CMD as a container engine would: process 1, and no variable but the image's and these."""
    namespaces = ["unshare", "--pid", "--kill-child"]
    argv = [*namespaces, *image.command(*image.entrypoint, *image.cmd)]
    return subprocess.Popen(argv, env=image.env | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def refuse(image: Stage) -> None:
    """Checks that the gateway does not start without a key."""
    process = start(image)
    output = process.communicate(timeout=30)[0]
    refused = process.returncode not in (0, None) and "HYBRID_ROUTER_API_KEY" in output
    expect("without a key it refuses to start, and says why", refused, output)


def serve(image: Stage) -> None:
    """Checks that the gateway answers with the key, and ends in order."""
    process = start(image, **KEY)
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while lines[-1] and "listens on" not in lines[-1]:
        lines.append(process.stdout.readline())
    complaints = [line for line in lines[:-1] if " INFO " not in line]
    expect("with a key it starts, and complains about nothing", lines[-1] != "" and not complaints, "".join(lines))
    expect("it listens for gRPC too", "gRPC on 0.0.0.0:8081" in lines[-1], lines[-1])
    gateway = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    status = dict(entry.split(":\t", 1) for entry in Path(f"/proc/{gateway}/status").read_text().splitlines())
    bare = status["Uid"].split()[0] == image.user.split(":")[0] and int(status["CapEff"], 16) == 0
    expect("it runs as the image's user, without capabilities", bare)
    expect("its health check passes", health(image, **KEY) == 0)
    code, answer = infer({})
    expect("a caller without the key gets a 401", code == 401, answer)
    code, answer = infer({"Authorization": f"Bearer {KEY['HYBRID_ROUTER_API_KEY']}"})
    right = code == 200 and json.loads(answer)["outputs"]["label"] == [7]
    expect("a caller with the key gets the right answer", right, answer)
    os.kill(gateway, signal.SIGTERM)
    output = process.communicate(timeout=20)[0]
    expect("SIGTERM ends it in order", process.returncode == 0, output)
    kept = sorted(path.name for volume in image.volumes for path in (image.root / volume.lstrip("/")).rglob("*.*"))
    expect("what a restart needs is in the volume", "cloud.spending" in kept, str(kept))


def health(image: Stage, **env: str) -> int:
    """The exit status of the image's HEALTHCHECK."""
    return subprocess.run(image.command(*image.healthcheck), env=image.env | env, capture_output=True).returncode


def infer(headers: dict[str, str]) -> tuple[int, str]:
    """Asks which digit the sample image shows; gives the status and the body of the answer."""
    picture = (PROJECT / "deploy/models/seven.png").read_bytes()
    url = f"{GATEWAY}/infer?model=digits&data_class=phi"
    try:
        answer = build_opener(ProxyHandler({})).open(Request(url, picture, {"Content-Type": "image/png"} | headers))
    except HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.read().decode()


def expect(what: str, holds: bool, otherwise: str = "") -> None:
    """Says that something holds.

    Raises:
        SystemExit: It does not.
    """
    if not holds:
        sys.exit(f"not so: {what}\n{otherwise}".strip())
    print(f"ok: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
