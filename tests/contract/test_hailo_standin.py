"""The stand-in fails as the vendor's package does: what the backend must never run into, it would run into here."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hat import standin, write_samples


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Any]:
    """The digits on the chip, as uint8, which is what a stream is until told otherwise."""
    with standin() as module:
        write_samples(module, tmp_path)
        hailo = importlib.import_module("hailo_platform")
        with hailo.VDevice() as vdevice:
            model = vdevice.create_infer_model(str(tmp_path / "digits.hef"))
            with model.configure() as found:
                yield found


def vendor(name: str) -> Any:
    return getattr(importlib.import_module("hailo_platform.pyhailort.pyhailort"), name)


def bound(configured: Any, *, size: int = 64) -> Any:
    bindings = configured.create_bindings()
    bindings.input().set_buffer(np.zeros(size, np.uint8))
    bindings.output("digits/argmax1").set_buffer(np.zeros(1, np.uint8))
    bindings.output("digits/softmax1").set_buffer(np.zeros(10, np.uint8))
    return bindings


def test_a_job_calls_back_on_another_thread(configured: Any) -> None:
    called: list[tuple[threading.Thread, object]] = []
    job = configured.run_async(
        [bound(configured)],
        callback=lambda completion_info: called.append((threading.current_thread(), completion_info.exception)),
    )
    job.wait(5000)
    ((thread, error),) = called
    assert thread is not threading.current_thread()
    assert error is None


@pytest.mark.parametrize("size", [63, 65, 256])
def test_a_buffer_of_the_wrong_size_shuts_the_pipeline_down(configured: Any, size: int) -> None:
    with pytest.raises(vendor("HailoRTInvalidOperationException")):
        configured.run_async([bound(configured, size=size)])
    with pytest.raises(vendor("HailoRTStreamAborted")):
        configured.wait_for_async_ready(timeout_ms=1000)
    with pytest.raises(vendor("HailoRTStreamAborted")):
        configured.run_async([bound(configured)])


def test_buffers_must_be_contiguous_and_writeable(configured: Any) -> None:
    stream = configured.create_bindings().input()
    with pytest.raises(vendor("HailoRTException"), match="C_CONTIGUOUS"):
        stream.set_buffer(np.zeros((64, 2), np.uint8)[:, 0])
    frozen = np.zeros(64, np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        stream.set_buffer(frozen)


def test_waiting_for_more_than_the_queue_holds_times_out(configured: Any) -> None:
    configured.wait_for_async_ready(timeout_ms=1000, frames_count=configured.get_async_queue_size())
    with pytest.raises(vendor("HailoRTTimeout")):
        configured.wait_for_async_ready(timeout_ms=10, frames_count=configured.get_async_queue_size() + 1)


def test_the_scheduler_is_on_and_the_chip_has_one_owner(configured: Any) -> None:
    with pytest.raises(vendor("HailoRTInvalidOperationException")):
        configured.activate()
    with pytest.raises(vendor("HailoRTException"), match="HAILO_OUT_OF_PHYSICAL_DEVICES"):
        vendor("VDevice")()
