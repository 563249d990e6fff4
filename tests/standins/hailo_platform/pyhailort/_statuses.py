"""The vendor's exceptions, and which status becomes which."""

from __future__ import annotations

from collections.abc import Mapping


class HailoRTException(Exception):
    """Base of all."""


class HailoRTStatusException(HailoRTException):
    """What the C++ library raises: a bare number. The vendor forgets to translate it in `Device`."""


class HailoRTTimeout(HailoRTException):
    pass


class HailoRTStreamAborted(HailoRTException):
    pass


class HailoRTStreamAbortedByUser(HailoRTException):
    pass


class HailoRTInvalidOperationException(HailoRTException):
    pass


class HailoRTInvalidArgumentException(HailoRTException):
    pass


class HailoRTNotFoundException(HailoRTException):
    pass


class HailoRTInvalidHEFException(HailoRTException):
    pass


class HailoRTHEFNotCompatibleWithDevice(HailoRTException):
    pass


class HailoRTDriverOperationFailedException(HailoRTException):
    pass


class HailoRTInvalidFrameException(HailoRTException):
    pass


class HailoRTUnsupportedOpcodeException(HailoRTException):
    pass


class HailoRTFirmwareControlFailedException(HailoRTException):
    pass


class HailoRTNetworkGroupNotActivatedException(HailoRTException):
    pass


class HailoCommunicationClosedException(HailoRTException):
    pass


class InvalidProtocolVersionException(HailoRTException):
    pass


STATUSES: Mapping[str, int] = {
    "HAILO_OUT_OF_HOST_MEMORY": 3,
    "HAILO_TIMEOUT": 4,
    "HAILO_INVALID_OPERATION": 6,
    "HAILO_INTERNAL_FAILURE": 8,
    "HAILO_FW_CONTROL_FAILURE": 18,
    "HAILO_INVALID_FRAME": 25,
    "HAILO_INVALID_HEF": 26,
    "HAILO_DRIVER_OPERATION_FAILED": 36,
    "HAILO_NOT_FOUND": 61,
    "HAILO_COMMUNICATION_CLOSED": 62,
    "HAILO_STREAM_ABORT": 63,
    "HAILO_DRIVER_NOT_INSTALLED": 64,
    "HAILO_OUT_OF_PHYSICAL_DEVICES": 74,
    "HAILO_INVALID_DRIVER_VERSION": 76,
    "HAILO_QUEUE_IS_FULL": 82,
    "HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE": 93,
    "HAILO_DEVICE_TEMPORARILY_UNAVAILABLE": 97,
}

_CLASSES: Mapping[str, type[HailoRTException]] = {
    "HAILO_TIMEOUT": HailoRTTimeout,
    "HAILO_INVALID_OPERATION": HailoRTInvalidOperationException,
    "HAILO_FW_CONTROL_FAILURE": HailoRTFirmwareControlFailedException,
    "HAILO_INVALID_FRAME": HailoRTInvalidFrameException,
    "HAILO_INVALID_HEF": HailoRTInvalidHEFException,
    "HAILO_DRIVER_OPERATION_FAILED": HailoRTDriverOperationFailedException,
    "HAILO_NOT_FOUND": HailoRTNotFoundException,
    "HAILO_COMMUNICATION_CLOSED": HailoCommunicationClosedException,
    "HAILO_STREAM_ABORT": HailoRTStreamAborted,
    "HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE": HailoRTHEFNotCompatibleWithDevice,
}


def get_status_message(status_code: int) -> str:
    """The name of a status."""
    return {number: name for name, number in STATUSES.items()}[status_code]


def exception_for(name: str) -> HailoRTException:
    """What the vendor's Python layer makes of a status."""
    if name in _CLASSES:
        return _CLASSES[name](name)
    return HailoRTException(f"libhailort failed with error: {STATUSES[name]} ({name})")
