"""A `.hef` is replaced while it serves: no call is lost, and what is wrong takes nobody's place."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.hailo import HailoBackend, HailoOptions, HailoServable, HailoVariant
from backends.versions import Versions
from router.errors import BackendUnavailable
from router.ports import BackendContext
from tests.contract.backends import MODELS_DIR, pixels
from tests.contract.hailo import DIGITS, ZEROS, backend, opened, refusal, soon, until_it_works, works
from tests.hat import write_samples
from tests.integration.scenario import eventually
from tests.wrong_model import wrong_model

GOLDEN = "digits.golden.npz"


@pytest.fixture
def golden(tmp_path: Path, variants: Mapping[str, HailoVariant]) -> Path:
    """The golden inputs of the digits, beside their `.hef`."""
    return Path(shutil.copyfile(MODELS_DIR / "digits-edge.golden.npz", tmp_path / GOLDEN))


def put(module: Any, folder: Path, onnx: Path) -> None:
    """Replaces the digits' `.hef` by one that answers as this model does, as a careful installer would."""
    fresh = folder / "fresh"
    fresh.mkdir(exist_ok=True)
    write_samples(module, fresh)
    content = (fresh / "digits.hef").read_text().replace(str(MODELS_DIR / "digits-edge.onnx"), str(onnx))
    (fresh / "digits.hef").write_text(content)
    os.replace(fresh / "digits.hef", folder / "digits.hef")


async def looks(servable: Versions[HailoServable]) -> None:
    """Probes twice, as the engine does, and lets what that started end."""
    for _ in range(2):
        await servable.probe(soon(), synthetic=False)
    if servable._loading is not None:
        await servable._loading


async def test_a_version_that_answers_its_golden_inputs_takes_over_and_no_call_is_lost(
    module: Any, tmp_path: Path, variants: Mapping[str, HailoVariant], golden: Path
) -> None:
    async with opened(tmp_path, variants) as servable:
        first, stop = servable.runtime, asyncio.Event()
        assert (first.provider, first.golden, first.swaps) == ("HailoRT", True, 0)
        answered = 0

        async def ask() -> None:
            nonlocal answered
            while not stop.is_set():
                await works(servable)
                answered += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask())
            for onnx in ("digits-cloud.onnx", "digits-edge.onnx", "digits-cloud.onnx"):
                before = answered
                put(module, tmp_path, MODELS_DIR / onnx)
                await looks(servable)
                await asyncio.gather(*servable._retiring)
                assert answered > before
            stop.set()
        assert servable.runtime.sha256 != first.sha256
        assert servable.runtime == replace(first, sha256=servable.runtime.sha256, swaps=3)
        assert module.CHIP.configured == 4, "once for each version"


async def test_a_call_ends_on_the_version_that_it_began_with(
    module: Any, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        put(module, tmp_path, MODELS_DIR / "digits-cloud.onnx")
        chip.gate.clear()
        calling = [asyncio.create_task(works(servable)) for _ in range(20)]
        await asyncio.sleep(0.05)
        first = servable.in_force
        chip.frame_s = 0.001
        for _ in range(2):
            await servable.probe(soon(), synthetic=False)
        chip.gate.set()
        assert servable._loading is not None
        await servable._loading
        assert servable.in_force is not first
        assert {reply.outputs["label"].shape for reply in await asyncio.gather(*calling)} == {(1,)}


@pytest.mark.parametrize("what", ["wrong", "no .hef", "golden"])
async def test_a_version_that_is_no_good_is_refused_and_the_old_one_stays(
    what: str, module: Any, tmp_path: Path, variants: Mapping[str, HailoVariant], golden: Path
) -> None:
    wrong_model(tmp_path / "wrong.onnx")
    spoil: Mapping[str, Callable[[], object]] = {
        "wrong": lambda: put(module, tmp_path, tmp_path / "wrong.onnx"),
        "no .hef": lambda: (tmp_path / "digits.hef").write_text("no .hef at all"),
        "golden": lambda: golden.write_bytes(b"no archive"),
    }
    async with opened(tmp_path, variants) as servable:
        first, right = servable.runtime, await works(servable)
        spoil[what]()
        await looks(servable)
        await looks(servable)
        told = {"wrong": "label is wrong", "no .hef": "cannot read this .hef", "golden": "does not hold golden inputs"}
        assert told[what] in servable.runtime.problem
        assert servable.runtime == replace(first, refusals=1, problem=servable.runtime.problem)
        np.testing.assert_array_equal((await works(servable)).outputs["probabilities"], right.outputs["probabilities"])
        put(module, tmp_path, MODELS_DIR / "digits-edge.onnx")
        shutil.copyfile(MODELS_DIR / "digits-edge.golden.npz", golden)
        await looks(servable)
        assert servable.runtime == replace(first, refusals=1)


async def test_a_model_that_is_wrong_from_the_start_does_not_serve_and_lets_the_chip_go(
    module: Any, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant], golden: Path
) -> None:
    wrong_model(tmp_path / "wrong.onnx")
    put(module, tmp_path, tmp_path / "wrong.onnx")
    assert "digits.hef is not trusted: label is wrong" in await refusal(tmp_path, variants["digits"])
    assert not chip.owned


async def test_golden_inputs_that_are_named_must_be_there(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    assert "cannot be read" in await refusal(tmp_path, replace(variants["digits"], golden="else.npz"))
    assert not chip.owned


async def test_after_the_device_was_lost_the_version_in_force_comes_back_and_not_what_lies_on_disk(
    module: Any, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    wrong_model(tmp_path / "wrong.onnx")
    async with opened(tmp_path, variants) as servable:
        before = (await works(servable)).outputs["probabilities"]
        put(module, tmp_path, tmp_path / "wrong.onnx")
        chip.present = False
        with pytest.raises(BackendUnavailable):
            await works(servable)
        chip.present = True
        await until_it_works(servable)  # without a look at the disk: its probes are synthetic
        np.testing.assert_array_equal((await works(servable)).outputs["probabilities"], before)
        assert servable.runtime.swaps == 0


async def test_a_model_that_does_not_fit_into_memory_is_not_read(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 32 kB\n")
    made = HailoBackend(HailoOptions(), BackendContext(tmp_path, root=tmp_path))
    with pytest.raises(BackendUnavailable, match=r"digits.hef does not fit: .*free on this machine. Serve it from"):
        await made.open(DIGITS, variants["digits"])
    await made.close()
    assert not chip.owned


async def test_closing_while_another_version_is_loaded_leaves_nothing(
    module: Any, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with backend(tmp_path) as made:
        servable = await made.open(DIGITS, variants["digits"])
        put(module, tmp_path, MODELS_DIR / "digits-cloud.onnx")
        await servable.probe(soon(), synthetic=False)
        chip.gate.clear()  # the new version's first run hangs
        await servable.probe(soon(), synthetic=False)
        await asyncio.to_thread(eventually, lambda: chip.configured == 2, "the new version is on the chip")
        asyncio.get_running_loop().call_later(0.1, chip.gate.set)
        await servable.close()
    assert not chip.owned


async def test_a_call_that_hangs_does_not_keep_its_version_on_the_chip_for_ever(
    module: Any, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.hailo.HUNG_AFTER_S", 0.1)
    monkeypatch.setattr("backends.hailo_pipeline.DRAIN_S", 0.1)
    async with backend(tmp_path) as made:
        servable = await made.open(DIGITS, variants["digits"])
        chip.gate.clear()
        calling = asyncio.create_task(servable.infer(pixels(ZEROS), soon()))
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.5, chip.gate.set)
        await servable.close()
        with pytest.raises(BackendUnavailable, match="taken off the HAT"):
            await calling


async def test_closing_while_a_refused_version_is_taken_off_the_chip_leaves_nothing(
    module: Any, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version's first run hung; while it is closed, the policy file says that the model is not needed."""
    monkeypatch.setattr("backends.hailo.HUNG_AFTER_S", 0.2)
    async with backend(tmp_path) as made:
        servable = await made.open(DIGITS, variants["digits"])
        put(module, tmp_path, MODELS_DIR / "digits-cloud.onnx")
        await servable.probe(soon(), synthetic=False)
        chip.gate.clear()
        await servable.probe(soon(), synthetic=False)
        await asyncio.to_thread(eventually, lambda: chip.configured == 2, "the new version is on the chip")
        await asyncio.sleep(0.3)  # its run was given up; its jobs are waited for
        asyncio.get_running_loop().call_later(0.1, chip.gate.set)
        await servable.close()
    assert not chip.owned


async def test_a_probe_ends_on_the_version_that_it_began_with(
    module: Any, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        old, busy = servable.in_force, threading.Event()
        put(module, tmp_path, MODELS_DIR / "digits-cloud.onnx")
        await servable.probe(soon(), synthetic=False)
        chip.gate.clear()
        await servable.probe(soon(), synthetic=False)
        await asyncio.to_thread(eventually, lambda: chip.configured == 2, "the new version is on the chip")
        old._thread.submit(busy.wait, 5)  # as the configuring of another model would
        probing = asyncio.create_task(servable.probe(soon(), synthetic=False))
        await asyncio.sleep(0.02)
        chip.gate.set()
        assert servable._loading is not None
        await servable._loading
        assert servable.in_force is not old
        busy.set()
        await probing
