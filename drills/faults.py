"""What each scenario does, from when the fault begins to when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import yaml

from drills.gateway import Gateway
from drills.scene import DrillFailed, Scene

FLAP_S = 1.0
BROWNOUT_RTT_S, BROWNOUT_JITTER_S, BROWNOUT_LOSS = 0.5, 0.05, 0.02
UPLINK_BITS_PER_S = 1e6
READY_WITHIN_S = 10.0
NOTICED_WITHIN_S = 5.0
"""A policy file's change is noticed at once or, where the file system sends no events, by looking every two seconds."""

VALID = "hybrid_router_policy_file_valid"


async def wan_cut(scene: Scene) -> None:
    """The cable is pulled: packets vanish and nobody is told."""
    scene.begin()
    scene.lab.line.cut()
    await scene.hold()
    scene.lab.line.restore()
    scene.end()


async def wan_flap(scene: Scene) -> None:
    """The cable is pulled for a second, plugged in for a second, and so on."""
    scene.begin()
    while True:
        scene.lab.line.cut()
        await asyncio.sleep(FLAP_S)
        scene.lab.line.restore()
        if scene.now() - scene.began + FLAP_S >= scene.timing.during:
            break
        await asyncio.sleep(FLAP_S)
    scene.end()


async def brownout(scene: Scene) -> None:
    """The round trip grows to 500 ms, with jitter, and some packets are lost."""
    line = scene.lab.line
    scene.begin()
    line.set_delay(BROWNOUT_RTT_S, BROWNOUT_JITTER_S)
    line.set_loss(BROWNOUT_LOSS)
    await scene.hold()
    line.mend()
    scene.end()


async def bandwidth(scene: Scene) -> None:
    """The uplink carries 1 Mbit/s, a fraction of what the load would send."""
    scene.begin()
    scene.lab.line.set_rate(UPLINK_BITS_PER_S)
    await scene.hold()
    scene.lab.line.set_rate(None)
    scene.end()


async def cloud_crash(scene: Scene) -> None:
    """Triton is killed, and started again; it is over when Triton serves."""
    cloud = scene.lab.cloud
    scene.begin()
    cloud.crash()
    await scene.hold()
    # From here on Triton starts, on the very cores that the device has: what it takes is not the outage's doing.
    scene.facts["steady_s"] = scene.now() - scene.began
    await asyncio.to_thread(cloud.stop)
    cloud.start()
    await asyncio.to_thread(cloud.wait_ready)
    scene.end()


async def cloud_hang(scene: Scene) -> None:
    """Triton stops computing; its connections stay open."""
    scene.begin()
    scene.lab.cloud.hang()
    await scene.hold()
    scene.lab.cloud.go_on()
    scene.end()


async def cloud_errors(scene: Scene) -> None:
    """Triton says that it is ready, and answers every inference with an error."""
    scene.begin()
    scene.lab.cloud.fail()
    await scene.hold()
    scene.lab.cloud.succeed()
    scene.end()


async def dns_loss(scene: Scene) -> None:
    """Names get no answer and connections are refused; then connections are accepted, and still names get no answer.

    The gateway knows where the cloud was, and is to go back there without being told.
    """
    line = scene.lab.line
    scene.begin()
    line.names_lost()
    line.refuse()
    await scene.hold()
    line.accept()
    scene.end()


async def gateway_crash(scene: Scene) -> None:
    """The gateway is killed and started again at once, on the same listening socket."""
    gateway = scene.gateway
    in_force = await asyncio.to_thread(gateway.policy_in_force)
    scene.facts["budget_spent_before"] = await asyncio.to_thread(gateway.spent_usd)
    scene.begin()
    gateway.kill()
    gateway.start()
    await scene.until(gateway.is_ready, "the gateway was ready again", READY_WITHIN_S)
    scene.end()
    scene.facts["ready_s"] = scene.ended - scene.began
    scene.facts["budget_spent_after"] = await asyncio.to_thread(gateway.spent_usd)
    if await asyncio.to_thread(gateway.policy_in_force) != in_force:
        scene.problems.append("After the restart another policy is in force than before.")


async def policy_garbage(scene: Scene) -> None:
    """The policy file is spoilt in five ways in turn, then mended."""
    policy = scene.gateway.policy
    good = policy.read_bytes()
    ways: tuple[tuple[str, Callable[[], object]], ...] = (
        ("rubbish", lambda: policy.write_bytes(b"}{ this is: [not a policy\n" * 40)),
        ("a truncated file", lambda: policy.write_bytes(good[: len(good) // 2])),
        ("an empty file", lambda: policy.write_bytes(b"")),
        ("binary content", lambda: policy.write_bytes(bytes(range(256)) * 64)),
        ("no file", policy.unlink),
    )
    scene.begin()
    for what, spoil in ways:
        spoil()
        await scene.hold(1 / len(ways))
        if await asyncio.to_thread(scene.gateway.metric, VALID) != 0:
            scene.problems.append(f"With {what} in the policy file's place, {VALID} is not 0.")
    policy.write_bytes(good)
    scene.end()
    await _valid_again(scene)


async def disk_full(scene: Scene) -> None:
    """The disk with policy file and state is filled, and a tool that does not check replaces the policy file."""
    gateway = scene.gateway
    good = gateway.policy.read_bytes()
    filler = gateway.files / "filler"
    scene.begin()
    _fill(filler)
    replacement = gateway.policy.with_name("policy.yaml.new")
    try:
        replacement.write_bytes(good)
        raise DrillFailed("the disk was to be full, and could be written to")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    replacement.rename(gateway.policy)
    await scene.hold()
    scene.problems += [f"With its disk full: {problem}" for problem in await asyncio.to_thread(gateway.ledger_problems)]
    filler.unlink()
    gateway.policy.write_bytes(good)
    scene.end()
    await _valid_again(scene)


async def local_model_corrupt(scene: Scene) -> None:
    """The fallback's file is overwritten with garbage, and the policy file changed so that it is opened anew."""
    gateway = scene.gateway
    model, before = gateway.model.read_bytes(), await asyncio.to_thread(gateway.policy_in_force)
    scene.begin()
    gateway.model.write_bytes(os.urandom(len(model)))
    _bump_version(gateway)
    await scene.hold()
    if await asyncio.to_thread(gateway.metric, VALID) != 0:
        scene.problems.append(f"With a model file that cannot be opened, {VALID} is not 0.")
    if await asyncio.to_thread(gateway.policy_in_force) != before:
        scene.problems.append("A policy file whose model cannot be opened was put in force.")
    gateway.model.write_bytes(model)
    scene.end()
    await _valid_again(scene)


async def _valid_again(scene: Scene) -> None:
    """Notes it as a problem if the mended policy file is not put in force soon."""
    try:
        await scene.until(lambda: scene.gateway.metric(VALID) == 1, f"{VALID} was 1 again", NOTICED_WITHIN_S)
    except DrillFailed as failure:
        scene.problems.append(f"After it was mended, {failure}.")


def _fill(file: Path) -> None:
    """Writes until the file system is full, in ever smaller pieces."""
    with file.open("wb", buffering=0) as filler:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while filler.write(bytes(size)):
                    continue


def _bump_version(gateway: Gateway) -> None:
    """Changes the version of the model in the policy file, which has its files opened anew."""
    content = yaml.safe_load(gateway.policy.read_text(encoding="utf-8"))
    content["models"]["digits"]["version"] = "2"
    gateway.policy.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
