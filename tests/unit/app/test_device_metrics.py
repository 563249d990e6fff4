"""What Prometheus sees of the device, and that a sensor that is not there is not a zero."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from app.device_metrics import DeviceCollector
from router.device import DeviceHealth, DeviceView, Flags, Strain


def exposed(device: DeviceView) -> dict[tuple[str, ...], float]:
    """Samples by name and labels, without the prefix."""
    registry = CollectorRegistry()
    registry.register(DeviceCollector(lambda: device))
    return {
        (sample.name.removeprefix("hybrid_router_device_"), *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_a_device_without_sensors_has_only_its_strain() -> None:
    assert {name for name, *_ in exposed(DeviceView())} == {"strain"}


def test_what_is_known_is_there_and_nothing_else() -> None:
    health = DeviceHealth(
        soc_c=76.5,
        now=Flags(under_voltage=False, throttled=True),
        since_boot=Flags(under_voltage=True),
        fan_rpm=0.0,
        power_w=6.5,
        silent=("disk",),
    )
    samples = exposed(DeviceView(health, Strain.THROTTLED))
    strain = {("strain", level.value): float(level is Strain.THROTTLED) for level in Strain}
    assert samples == strain | {
        ("temperature_celsius", "soc"): 76.5,
        ("flag", "under-voltage"): 0.0,
        ("flag", "throttled"): 1.0,
        ("flag_since_boot", "under-voltage"): 1.0,
        ("fan_rpm",): 0.0,
        ("power_watts", "board"): 6.5,
        ("sensor_silent", "disk"): 1.0,
    }
