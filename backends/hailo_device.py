"""The HAT itself: HailoRT found at run time, the one VDevice of this process, and how the chip is doing.

Invariants of `SharedDevice`: there is never more than one VDevice; it is opened for the first lease and released with
the last one's end; after one lease said that the device is lost, no new lease is given on the old VDevice, and a new
one is opened when all leases on it have ended. Everything here blocks, and most of it holds the GIL: HailoRT's Python
layer lets go of it in `wait_for_async_ready`, `run_async` and `AsyncInferJob.wait` only. Call it in threads, seldom.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.hailo_errors import NO_HAT, translated
from router.errors import BackendUnavailable

log = logging.getLogger(__name__)

SDK = "hailo_platform"


def load_sdk() -> Any:
    """HailoRT's Python package.

    Raises:
        BackendUnavailable: It is not there, or not whole; the sentence says how it gets there.
    """
    try:
        return importlib.import_module(SDK)
    except ModuleNotFoundError as error:
        if error.name == SDK:
            raise BackendUnavailable(
                "HailoRT's Python package (hailo_platform) is not installed. Install hailo-all (AI HAT+) or "
                "hailo-h10-all (AI HAT+ 2) with apt, and make the virtual environment with --system-site-packages; "
                "see docs/hardware.md."
            ) from error
        raise _unusable(error) from error
    except Exception as error:  # MissingPyHRTLib is a plain Exception, a version mismatch an ImportError
        raise _unusable(error) from error


def _unusable(error: Exception) -> BackendUnavailable:
    said = str(error).splitlines()[0] if str(error) else ""
    return BackendUnavailable(
        f"HailoRT's Python package cannot be used: {type(error).__name__}: {said}. Its parts must be of one version "
        "and of this Python, and before Python 3.13 it needs numpy 1; see docs/hardware.md."
    )


def status_name(sdk: Any) -> Callable[[int], str]:
    """HailoRT's function that names a status by its number."""
    named: Callable[[int], str] = importlib.import_module(f"{sdk.__name__}.pyhailort.pyhailort").get_status_message
    return named


class Lease:
    """One user's hold on the VDevice of this process.

    Args:
        owner: Who gave it.
        vdevice: The VDevice. Infer models made on it keep it alive: drop them before the lease ends.
        sdk: HailoRT.
    """

    def __init__(self, owner: SharedDevice, vdevice: Any, sdk: Any) -> None:
        self._owner = owner
        self.vdevice = vdevice
        self.sdk = sdk
        self._ended = False

    @property
    def worthless(self) -> bool:
        """Whether it has ended, or somebody else found the device lost."""
        return self._ended or self._owner.lost

    def end(self, *, lost: bool = False) -> None:
        """Gives it back; only the first time counts.

        Args:
            lost: The device no longer works, so that the others' leases on it are worth nothing either.
        """
        if not self._ended:
            self._ended = True
            self.vdevice = None
            self._owner.returned(lost)


class SharedDevice:
    """Owns the VDevice of this process, with the vendor's scheduler on, so that several models share the chip."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leases = 0
        self.lost = False
        self._vdevice: Any = None
        self._devices: list[Any] | None = None

    def lease(self) -> Lease:
        """A hold on the VDevice, which is opened if it is not.

        Raises:
            BackendUnavailable: There is no HailoRT, no HAT, another process holds it, or it was lost and the models
                that were on it have not let it go yet.
        """
        sdk = load_sdk()
        with self._lock:
            if self.lost:
                raise BackendUnavailable("The HAT was lost, and is opened again when every model has let it go.")
            if self._vdevice is None:
                self._vdevice = _opened(sdk)
            self._leases += 1
            return Lease(self, self._vdevice, sdk)

    def returned(self, lost: bool) -> None:
        """A lease has ended."""
        with self._lock:
            self._leases -= 1
            self.lost = self.lost or lost
            if self._leases == 0:
                vdevice, self._vdevice, self._devices, self.lost = self._vdevice, None, None, False
                try:
                    vdevice.release()
                except Exception as error:  # a device that went away may not take its leave
                    log.warning("releasing the HAT failed: %s", error)

    def health(self) -> HatHealth | None:
        """How the chip of the VDevice is doing; None if none is open."""
        with self._lock:
            if self._vdevice is None or self.lost:
                return None
            if self._devices is None:  # each new Device object makes HailoRT collect garbage: they are kept
                try:
                    self._devices = list(self._vdevice.get_physical_devices())
                except Exception:
                    return None
            return _read(self._devices[0]) if self._devices else None


def _opened(sdk: Any) -> Any:
    try:
        # A VDevice says that it is out of devices both when there is none and when another process has it.
        if not sdk.Device.scan():
            raise BackendUnavailable(NO_HAT)
        params = sdk.VDevice.create_params()
        params.scheduling_algorithm = sdk.HailoSchedulingAlgorithm.ROUND_ROBIN
        return sdk.VDevice(params)
    except Exception as error:
        said = translated(error, "Opening the HAT", status_name(sdk)).with_traceback(None)
    raise said  # without its cause, whose traceback would keep what was half opened


DEVICE = SharedDevice()
"""The one of this process."""


@dataclass(frozen=True, slots=True)
class HatHealth:
    """How the chip is doing. What a board does not tell is None.

    Args:
        temperature_c: The hotter of its two sensors, in degrees Celsius.
        power_w: What it draws, in watts.
        throttled: Whether it slows itself down for heat or current.
    """

    temperature_c: float | None
    power_w: float | None
    throttled: bool | None


def hat_health() -> HatHealth | None:
    """Reads the chip's temperature, power and throttling; None without a HAT, or without HailoRT.

    Blocking; call it in a thread, every few seconds at most.
    """
    health = DEVICE.health()
    if health is not None:
        return health
    try:
        sdk = load_sdk()
        if not sdk.Device.scan():
            return None
        with sdk.Device() as device:
            return _read(device)
    except Exception:  # whatever is wrong with it, there is nothing to read; opening a model says what
        return None


def _read(device: Any) -> HatHealth | None:
    temperature = _told(device.control.get_chip_temperature)
    power = _told(device.control.power_measurement)
    throttled = _told(device.control.get_throttling_state)
    if temperature is None and power is None and throttled is None:
        return None
    return HatHealth(
        None if temperature is None else float(max(temperature.ts0_temperature, temperature.ts1_temperature)),
        None if power is None else float(power),
        None if throttled is None else bool(throttled),
    )


def _told(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception:  # not every board measures everything
        return None
