"""The scenarios: what is done to which part while which load runs, and how one of them is run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from drills import faults
from drills.lab import Lab
from drills.line import LineFailed
from drills.load import Listener, Stream
from drills.overheat import overheat
from drills.overload import overload
from drills.record import Record, Wire
from drills.scene import LEAD_S, Scene, Timing
from drills.streams import CLOUD_ONLY, KIOSK, LARGE, LOCAL, PHI, PRIMARY

UP_WITHIN_S = 15.0

SPARE_S = 120.0
"""Beyond its usual length that a load may go on, where the fault takes longer, such as until Triton has started."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to fail.

    Args:
        name: What it is called.
        sentence: What happens in it.
        fault: Makes it happen.
        streams: The load before, during and after. The first is `primary` unless the scenario has a load of its own.
        needs_root: Whether it cannot be had on a relay.
        small_disk: Whether the gateway keeps its files on a small disk of its own.
        own_device: Whether the gateway reads the sensors of a device that the drill imitates.
    """

    name: str
    sentence: str
    fault: Callable[[Scene], Awaitable[None]]
    streams: tuple[Stream, ...] = (PRIMARY, PHI)
    needs_root: bool = False
    small_disk: bool = False
    own_device: bool = False


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("wan-cut", "The WAN is cut: packets vanish and nothing is refused.", faults.wan_cut),
        Scenario("wan-flap", "The WAN is gone for a second, back for a second, and so on.", faults.wan_flap),
        Scenario(
            "brownout",
            "The round trip grows from 20 to 500 ms, with jitter, and 2 % of the packets are lost.",
            faults.brownout,
            needs_root=True,
        ),
        Scenario(
            "bandwidth",
            "The uplink shrinks to 1 Mbit/s while 5 Mbit/s of large tensors go up beside the usual load.",
            faults.bandwidth,
            streams=(PRIMARY, PHI, LARGE),
        ),
        Scenario("cloud-crash", "Triton is killed, and later started again.", faults.cloud_crash),
        Scenario(
            "cloud-hang", "Triton stops (SIGSTOP): it keeps its connections and answers nothing.", faults.cloud_hang
        ),
        Scenario(
            "cloud-errors",
            "Triton says that it is ready and answers every inference with an error.",
            faults.cloud_errors,
        ),
        Scenario(
            "dns-loss",
            "The cloud's connections are lost, and its name with them; the name stays away when the line is back.",
            faults.dns_loss,
            needs_root=True,
        ),
        Scenario(
            "gateway-crash", "The gateway is killed in the middle of the load, and restarted.", faults.gateway_crash
        ),
        Scenario(
            "policy-garbage", "The policy file is overwritten with rubbish, five kinds of it.", faults.policy_garbage
        ),
        Scenario(
            "disk-full",
            "The disk that holds policy file and state is filled to the last byte.",
            faults.disk_full,
            needs_root=True,
            small_disk=True,
        ),
        Scenario(
            "local-model-corrupt",
            "The fallback's model file is overwritten with garbage, and the policy file changed so that it is opened.",
            faults.local_model_corrupt,
        ),
        Scenario(
            "all-down",
            "The WAN is cut, and the model has no variant on the device.",
            faults.wan_cut,
            streams=(CLOUD_ONLY, PHI),
        ),
        Scenario(
            "overload",
            "Ten times what the device can answer is asked of a slow model that only it has.",
            overload,
            streams=(PHI,),
        ),
        Scenario(
            "overheat",
            "The fan stands still: the device, an imitated one, gets the hotter the more it answers.",
            overheat,
            streams=(KIOSK, PHI),
            own_device=True,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Demand:
    """How much is asked.

    Args:
        per_second: Requests a second of the main load, and of the device alone in the baseline.
        deadline_s: Deadline of every request.
    """

    per_second: float = PRIMARY.per_second
    deadline_s: float = PRIMARY.deadline_s

    def of(self, stream: Stream) -> Stream:
        """The stream at this demand; streams beside the main load keep their rate."""
        rate = self.per_second if stream.per_second == PRIMARY.per_second else stream.per_second
        return replace(stream, per_second=rate, deadline_s=self.deadline_s)


async def run(scenario: Scenario, lab: Lab, timing: Timing, listener: Listener, demand: Demand | None = None) -> Record:
    """Runs one scenario, from a sound lab and a gateway of its own to the record of what was seen.

    Args:
        scenario: What to run.
        lab: Where.
        timing: How long its parts take.
        listener: Told how it gets on.
        demand: How much is asked.

    Raises:
        DrillFailed: The drill itself did not work.
        ChildFailed: One of its processes did not.
        LineFailed: The line did not, or cannot do what the scenario needs.
        LoadFailed: The load did not.
    """
    demand = demand or Demand()
    listener.phase("start", UP_WITHIN_S)
    lab.line.mend()
    if not lab.cloud.running:
        lab.start_cloud()
        await asyncio.to_thread(lab.cloud.wait_ready)
    gateway = lab.gateway(scenario.name, small_disk=scenario.small_disk, own_device=scenario.own_device)
    try:
        gateway.start()
        await asyncio.to_thread(gateway.wait_started)
        scene = Scene(lab, gateway, timing, listener, time.monotonic(), lab.folder(scenario.name))
        for model in ("digits", "embed", "digits-cloud-only"):
            await scene.until(partial(gateway.is_up, model, "cloud"), f"{model} in the cloud was up", UP_WITHIN_S)
        wire = lab.line.wire()
        await _play(scene, scenario, demand)
        crossed = _crossed(scene, wire)
    finally:
        lab.line.mend()
        await asyncio.to_thread(gateway.close)
    return Record(
        scenario.name,
        scenario.sentence,
        scene.began,
        scene.ended,
        tuple(sorted(scene.samples, key=lambda sample: sample.due)),
        tuple(sorted(scene.sightings, key=lambda sighting: sighting.at)),
        crossed,
        scene.facts,
        tuple(scene.problems),
    )


async def _play(scene: Scene, scenario: Scenario, demand: Demand) -> None:
    """Warm-up, baseline, before, fault, after."""
    timing, listener = scene.timing, scene.listener
    listener.phase("warm-up", timing.warm_up)
    async with scene.load([demand.of(PRIMARY), demand.of(PHI)], timing.warm_up) as load:
        await load.wait()
    listener.phase("device alone", timing.baseline)
    async with scene.load([demand.of(LOCAL)], timing.baseline) as load:
        await load.wait()
    scene.keep(load)
    listener.phase("before", timing.before)
    streams = [demand.of(stream) for stream in scenario.streams]
    longest = timing.before + timing.during + timing.after + SPARE_S
    begins = scene.now() + LEAD_S
    async with scene.load(streams, longest) as load:
        await asyncio.sleep(begins + timing.before - scene.now())
        await scenario.fault(scene)
        await asyncio.sleep(max(0.0, scene.ended + timing.after - scene.now()))
        await load.stop()
    scene.keep(load)


def _crossed(scene: Scene, before: Wire) -> Wire | None:
    """What has crossed the line since `before`; None, and a problem, where that cannot be said."""
    try:
        after = scene.lab.line.wire()
    except LineFailed as failure:
        scene.problems.append(str(failure))
        return None
    marked = {name: count - before.marked[name] for name, count in after.marked.items()}
    return Wire(after.packets - before.packets, after.bytes - before.bytes, marked)
