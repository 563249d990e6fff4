"""What the engine makes of the device's health: its policies see it, and nothing that must stay here leaves."""

from __future__ import annotations

import asyncio

from policies.local_first import LocalFirst
from router.device import DeviceHealth, Flags, Strain
from router.engine import Engine
from tests.unit.samples import deployment, request
from tests.unit.standins import Lab
from tests.unit.virtual_time import in_virtual_time

WARM = DeviceHealth(soc_c=76.0)
COOL = DeviceHealth(soc_c=50.0)
LOCAL_FIRST = deployment(LocalFirst())


async def answered_by(engine: Engine, data_class: str = "unclassified") -> str:
    return (await engine.infer(request(data_class=data_class))).route.backend


@in_virtual_time
async def test_a_warm_device_is_spared_until_it_is_cool_again() -> None:
    lab = Lab()
    async with lab.running(LOCAL_FIRST) as engine:
        assert await answered_by(engine) == "edge"
        engine.sense(WARM)
        response = await engine.infer(request())
        assert response.route.backend == "cloud"
        assert "edge is spared, since the device is warm" in response.route.reason
        assert not response.route.degraded
        assert await answered_by(engine, "phi") == "edge"
        for _ in range(12):
            await asyncio.sleep(1)
            engine.sense(COOL)
        assert engine.snapshot.device.strain is Strain.NORMAL
        assert await answered_by(engine) == "edge"


@in_virtual_time
async def test_a_policy_file_that_is_put_in_force_finds_the_device_as_it_is() -> None:
    lab = Lab()
    async with lab.running(LOCAL_FIRST) as engine:
        engine.sense(WARM)
        await engine.adopt(deployment(LocalFirst(), deadline_s=0.4), must_open=False)
        assert engine.snapshot.device.health is WARM
        assert await answered_by(engine) == "cloud"


@in_virtual_time
async def test_what_happens_to_a_backend_does_not_hide_how_the_device_is() -> None:
    lab = Lab()
    async with lab.running(LOCAL_FIRST) as engine:
        engine.sense(DeviceHealth(soc_c=70.0, now=Flags(throttled=True)))
        for _ in range(3):
            assert await answered_by(engine) == "cloud"
            await asyncio.sleep(0.5)
        assert engine.snapshot.targets["m", "edge"].strain is Strain.THROTTLED
        assert engine.snapshot.targets["m", "cloud"].strain is Strain.NORMAL
        assert engine.snapshot.models["m"].targets[0].strain is Strain.THROTTLED


@in_virtual_time
async def test_without_a_cloud_a_hot_device_answers() -> None:
    lab = Lab()
    async with lab.running(deployment(LocalFirst(), backends=("edge",))) as engine:
        engine.sense(DeviceHealth(soc_c=85.0))
        assert await answered_by(engine) == "edge"
