"""What HailoRT's errors mean: one table from the vendor's exceptions and status names to the router's errors.

Invariants: every exception has exactly one entry, the last one for those that nobody foresaw; each sentence says what
to do. HailoRT gives some statuses a class of their own, names others in the message only, and passes a bare number
through where its Python layer forgot to translate (`Device`, `Device.scan`): all three are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from router.errors import BackendError, BackendFailed, BackendTimeout, BackendUnavailable, Overloaded


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error of HailoRT's says.

    Args:
        error: The type in the router's words.
        advice: A sentence or two on what is wrong and what to do.
        lost: Whether the device has to be opened anew; else configuring the model anew is enough.
    """

    error: type[BackendError]
    advice: str
    lost: bool = False


NO_HAT = (
    "No HAT was found. See that it is seated, that `lspci` lists a Hailo processor, and that the kernel driver "
    "is loaded (`lsmod | grep hailo`)."
)

_BUSY = Meaning(
    BackendUnavailable,
    "Another process holds the HAT, which has one owner at a time: hailo-ollama, rpicam-apps or a second gateway. "
    "Stop it (`sudo lsof /dev/hailo0` names it).",
)
_VERSIONS = Meaning(
    BackendUnavailable,
    "HailoRT, its kernel driver and the HAT's firmware are not of one version: `sudo apt full-upgrade`, then reboot.",
    lost=True,
)
_GONE = Meaning(
    BackendUnavailable,
    "The HAT went away or was reset. It is opened again when it is back; `dmesg | grep hailo` says why it went.",
    lost=True,
)
_NOT_THIS_HEF = Meaning(
    BackendUnavailable,
    "HailoRT cannot read this .hef: it is damaged, or compiled for another version. Compile it anew with the Dataflow "
    "Compiler that belongs to the installed HailoRT.",
)
_ABORTED = Meaning(
    BackendUnavailable,
    "HailoRT gave the run up: the chip stopped its data flow (it does when it overheats), or a run before it failed.",
)
_MEMORY = Meaning(BackendUnavailable, "There is not enough memory for this model, on the host or on the HAT.")
_DEFECT = Meaning(BackendFailed, "HailoRT refused what the gateway asked of it; hailort.log says more.")

MEANINGS: Mapping[str, Meaning] = MappingProxyType(
    {
        "HailoRTTimeout": Meaning(BackendTimeout, "The HAT did not take or finish the work in time."),
        "HailoRTStreamAborted": _ABORTED,
        "HailoRTStreamAbortedByUser": _ABORTED,
        "HailoRTInvalidOperationException": _DEFECT,
        "HailoRTInvalidArgumentException": _DEFECT,
        "HailoRTNetworkGroupNotActivatedException": _DEFECT,
        "HailoRTInvalidFrameException": Meaning(BackendFailed, "The HAT answered with an invalid frame."),
        "HailoRTNotFoundException": Meaning(BackendUnavailable, "HailoRT did not find a stream or model of that name."),
        "HailoRTInvalidHEFException": _NOT_THIS_HEF,
        "HAILO_HEF_FILE_CORRUPTED": _NOT_THIS_HEF,
        "HAILO_HEF_NOT_SUPPORTED": _NOT_THIS_HEF,
        "HAILO_OPEN_FILE_FAILURE": _NOT_THIS_HEF,
        "HailoRTHEFNotCompatibleWithDevice": Meaning(
            BackendUnavailable,
            "The .hef is compiled for another chip: Hailo-8L, Hailo-8 and Hailo-10H each take their own.",
        ),
        "HailoRTDriverOperationFailedException": _GONE,
        "HailoCommunicationClosedException": _GONE,
        "HailoRTFirmwareControlFailedException": _GONE,
        "HAILO_DEVICE_NOT_CONNECTED": _GONE,
        "HAILO_DEVICE_TEMPORARILY_UNAVAILABLE": _GONE,
        "HAILO_DRIVER_TIMEOUT": _GONE,
        "HAILO_CONNECTION_REFUSED": _GONE,
        "HAILO_DRIVER_NOT_INSTALLED": Meaning(
            BackendUnavailable,
            "The HAT's driver is not loaded: install hailo-all (AI HAT+) or hailo-h10-all (AI HAT+ 2), and reboot.",
            lost=True,
        ),
        "InvalidProtocolVersionException": _VERSIONS,
        "HailoRTUnsupportedOpcodeException": _VERSIONS,
        "HAILO_UNSUPPORTED_FW_VERSION": _VERSIONS,
        "HAILO_INVALID_DRIVER_VERSION": _VERSIONS,
        "HAILO_DRIVER_INVALID_IOCTL": _VERSIONS,
        "HAILO_DRIVER_INVALID_RESPONSE": _VERSIONS,
        "HAILO_OUT_OF_PHYSICAL_DEVICES": _BUSY,
        "HAILO_DEVICE_IN_USE": _BUSY,
        "HAILO_OUT_OF_HOST_MEMORY": _MEMORY,
        "HAILO_OUT_OF_HOST_CMA_MEMORY": _MEMORY,
        "HAILO_OUT_OF_FW_MEMORY": _MEMORY,
        "HAILO_QUEUE_IS_FULL": Meaning(Overloaded, "The HAT's queue is full."),
    }
)

_UNFORESEEN = Meaning(BackendFailed, "HailoRT failed; hailort.log says more.")
_STATUS = re.compile(r"HAILO_\w+")


def meaning_of(error: BaseException, status_name: Callable[[int], str] | None = None) -> Meaning:
    """What an exception that came out of HailoRT means.

    Args:
        error: The exception.
        status_name: Names a status by its number; HailoRT's `get_status_message`.
    """
    for kind in type(error).__mro__:
        if kind.__name__ in MEANINGS:
            return MEANINGS[kind.__name__]
    message = str(error)
    if message.isdigit() and status_name is not None:
        message = status_name(int(message))
    for name in _STATUS.findall(message):
        found = MEANINGS.get(name) or MEANINGS.get(_CLASSES.get(name, ""))
        if found is not None:
            return found
    return _UNFORESEEN


_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "HAILO_TIMEOUT": "HailoRTTimeout",
        "HAILO_STREAM_ABORT": "HailoRTStreamAborted",
        "HAILO_INVALID_HEF": "HailoRTInvalidHEFException",
        "HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE": "HailoRTHEFNotCompatibleWithDevice",
        "HAILO_DRIVER_OPERATION_FAILED": "HailoRTDriverOperationFailedException",
        "HAILO_COMMUNICATION_CLOSED": "HailoCommunicationClosedException",
        "HAILO_FW_CONTROL_FAILURE": "HailoRTFirmwareControlFailedException",
    }
)
"""Statuses that usually come as a class, where the bare number came through."""


def bare(error: BaseException) -> BaseException:
    """The same, without what it drags along: HailoRT's frames refer to objects that keep the chip while they live."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def translated(error: BaseException, what: str, status_name: Callable[[int], str] | None = None) -> BackendError:
    """The error in the router's words; one of the router's own is returned as it is.

    Args:
        error: What was raised, or what a job ended with.
        what: The model's file, or what was being done.
        status_name: Names a status by its number.
    """
    if isinstance(error, BackendError):
        return error
    meaning = meaning_of(error, status_name)
    said = str(error).splitlines()[0] if str(error) else ""
    return meaning.error(f"{what}: {meaning.advice} ({type(error).__name__}{': ' if said else ''}{said})")
