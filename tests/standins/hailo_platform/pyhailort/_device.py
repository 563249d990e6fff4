"""The chip as a device: what it says of itself. Several may be open, beside a VDevice too."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Literal, Self

from ..standin import CHIP  # noqa: TID252 a package that is imported under another name by type checkers
from ._statuses import STATUSES, HailoRTException, HailoRTStatusException, exception_for


class DvmTypes(Enum):
    AUTO = 0


class PowerMeasurementTypes(Enum):
    AUTO = 0


class DeviceArchitectureTypes(IntEnum):
    HAILO8 = 1
    HAILO8L = 2
    HAILO10H = 6

    def __str__(self) -> str:
        return self.name


class BoardInformation:
    """What a chip says of itself."""

    board_name = "Hailo-8"
    firmware_version = "5.2.0 (release,app)"
    device_architecture = DeviceArchitectureTypes.HAILO8L
    serial_number = "STANDIN0000000001"
    part_number = "HM21LB1C2LAE"
    product_name = "STAND-IN, NO HAILO-8L"


class TemperatureInfo:
    """Two sensors."""

    def __init__(self, celsius: float) -> None:
        self.ts0_temperature = celsius
        self.ts1_temperature = celsius - 0.5
        self.sample_count = 7


class Control:
    """Questions to the chip's firmware."""

    def identify(self) -> BoardInformation:
        _answering()
        return BoardInformation()

    def get_chip_temperature(self) -> TemperatureInfo:
        _answering()
        return TemperatureInfo(CHIP.temperature_c)

    def power_measurement(
        self, dvm: DvmTypes = DvmTypes.AUTO, measurement_type: PowerMeasurementTypes = PowerMeasurementTypes.AUTO
    ) -> float:
        _answering()
        if CHIP.power_w is None:
            raise exception_for("HAILO_FW_CONTROL_FAILURE")
        return CHIP.power_w

    def get_throttling_state(self) -> bool:
        _answering()
        return CHIP.throttled


def _answering() -> None:
    if not CHIP.present:
        raise exception_for("HAILO_DRIVER_OPERATION_FAILED")


class Device:
    """A chip, for control; several may be open, beside a VDevice too."""

    @classmethod
    def scan(cls) -> list[str]:
        return ["0001:01:00.0"] if CHIP.present else []

    def __init__(self, device_id: str | None = None) -> None:
        CHIP.garbage_collections += 1
        if device_id is None and not Device.scan():
            raise HailoRTException("HailoRT device not found in the system")
        if not CHIP.present:
            raise HailoRTStatusException(str(STATUSES["HAILO_DRIVER_OPERATION_FAILED"]))
        self._control = Control()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> Literal[False]:
        self.release()
        return False

    def release(self) -> None:
        pass

    @property
    def control(self) -> Control:
        return self._control
