"""What Prometheus sees of the device. A sensor that is not there has no sample: an absent one is not a zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.device import DeviceView, Strain


class DeviceCollector(Collector):
    """Gauges, read at scrape time from what policies see.

    Args:
        device: Gives the device as it is in the current snapshot.
    """

    def __init__(self, device: Callable[[], DeviceView]) -> None:
        self._device = device

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges."""
        device = self._device()
        health = device.health
        yield _labelled(
            "strain",
            "1 for how strained it is.",
            "strain",
            {strain.value: strain is device.strain for strain in Strain},
        )
        yield _labelled("temperature_celsius", "By sensor.", "sensor", {"soc": health.soc_c, "hat": health.hat_c})
        yield _labelled(
            "power_watts", "What it draws, estimated.", "part", {"board": health.power_w, "hat": health.hat_w}
        )
        for name, text, flags in (
            ("flag", "1 while the firmware says so.", health.now),
            ("flag_since_boot", "1 if the firmware has said so at any time since the start.", health.since_boot),
        ):
            yield _labelled(
                name, text, "flag", {flag.replace("_", "-"): value for flag, value in asdict(flags).items()}
            )
        yield _labelled(
            "sensor_silent", "1 for each source that does not answer.", "source", dict.fromkeys(health.silent, 1)
        )
        for name, text, value in (
            ("hat_throttled", "1 while the accelerator slows itself down.", health.hat_throttled),
            ("cpu_hertz", "Clock of the fastest core.", health.cpu_hz),
            ("load1", "Processes that run or want to, over a minute.", health.load_1m),
            ("memory_available_bytes", "Memory that can be had without swapping.", health.memory_available_bytes),
            ("memory_bytes", "Memory in all.", health.memory_bytes),
            ("disk_free_bytes", "Free space where the state is kept.", health.disk_free_bytes),
            ("disk_bytes", "Space there in all.", health.disk_bytes),
            ("fan_rpm", "Turns of the fan a minute.", health.fan_rpm),
        ):
            family = GaugeMetricFamily(f"hybrid_router_device_{name}", text)
            if value is not None:
                family.add_metric([], float(value))
            yield family


def _labelled(name: str, text: str, label: str, values: Mapping[str, float | None]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"hybrid_router_device_{name}", text, labels=[label])
    for of, value in values.items():
        if value is not None:
            family.add_metric([of], float(value))
    return family
